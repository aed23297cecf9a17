// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/bagpipe-vpn/bagpipe/internal/lab"
)

// daemonName is the program that a lab's nodes run.
const daemonName = "bagpipe-bgp"

func (t *tool) labCommand() *cobra.Command {
	cmd := group(&cobra.Command{
		Use:   "lab",
		Short: "Build a demo network of two nodes on this host",
		Long: "lab runs two nodes with bagpipe-bgp, a route reflector and three virtual machines, all as network\n" +
			"namespaces of this host, joins the machines into one VPN and checks that they reach each other.\n" +
			"It needs root, iproute2 and ping; for Open vSwitch also openvswitch-switch and ethtool.",
		Example: "  bagpipe lab up\n  ip netns exec vm-a1 ping 198.51.100.21\n  bagpipe lab status\n  bagpipe lab down\n\n" +
			"  bagpipe lab up --name l3 --vpn ipvpn\n  ip netns exec l3-vm-a1 ping 198.51.100.50\n  bagpipe lab down --name l3",
	})
	cmd.AddCommand(t.labUpCommand(), t.labStatusCommand(), t.labDownCommand(), t.labReceiveCommand(), t.labSendCommand())
	return cmd
}

// labFlags registers the option that names the lab.
func labFlags(fs *pflag.FlagSet, o *lab.Options) {
	fs.StringVar(&o.Name, "name", "", "`name` of the lab, which becomes a prefix of its namespaces")
	fs.StringVar(&o.RunDir, "run-dir", lab.DefaultRunDir, "`directory` for state, configurations and logs of labs")
}

func (t *tool) labUpCommand() *cobra.Command {
	var o lab.Options
	cmd := &cobra.Command{
		Use:   "up",
		Short: "Build the lab and check it",
		Args:  usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := o.Check(); err != nil {
				return &usageError{err: err}
			}
			var err error
			if o.Self, err = os.Executable(); err != nil {
				return fmt.Errorf("find own program: %w", err)
			}
			if o.Daemon == "" {
				if o.Daemon, err = findDaemon(o.Self); err != nil {
					return err
				}
			}
			r, err := lab.Up(cmd.Context(), o, t.progressTo())
			return t.printReport(r, err)
		},
	}
	labFlags(cmd.Flags(), &o)
	cmd.Flags().IntVar(&o.Underlay, "underlay", 4, "IP `version` between the nodes: 4 or 6")
	cmd.Flags().StringVar(&o.VPN, "vpn", "", "`type` of VPN: evpn or ipvpn (default: evpn, with a scenario ipvpn)")
	cmd.Flags().StringVar(&o.Scenario, "scenario", "", "`name` of a sample scenario: "+lab.ScenarioNames())
	cmd.Flags().StringVar(&o.Dataplane, "dataplane", "",
		"dataplane `driver` of the nodes: linux; for ipvpn ebpf, ovs or linux (default: the first of these)")
	cmd.Flags().StringVar(&o.Daemon, daemonName, "", "`path` of bagpipe-bgp (default: beside this program, else on PATH)")
	return cmd
}

// findDaemon looks beside our own program first: the two belong together.
func findDaemon(self string) (string, error) {
	beside := filepath.Join(filepath.Dir(self), daemonName)
	if info, err := os.Stat(beside); err == nil && info.Mode().IsRegular() && info.Mode().Perm()&0o111 != 0 {
		return beside, nil
	}
	path, err := exec.LookPath(daemonName)
	if err != nil {
		return "", fmt.Errorf("find %s: not in %s and not on PATH; use --%s", daemonName, filepath.Dir(self), daemonName)
	}
	return filepath.Abs(path)
}

func (t *tool) labStatusCommand() *cobra.Command {
	var o lab.Options
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show whether the lab works",
		Args:  usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			r, err := lab.Status(cmd.Context(), o)
			return t.printReport(r, err)
		},
	}
	labFlags(cmd.Flags(), &o)
	return cmd
}

func (t *tool) labDownCommand() *cobra.Command {
	var o lab.Options
	cmd := &cobra.Command{
		Use:   "down",
		Short: "Remove the lab",
		Args:  usageArgs(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			if err := lab.Down(o, t.progressTo()); err != nil {
				return err
			}
			return t.print(map[string]bool{"down": true}, func(io.Writer) error { return nil })
		},
	}
	labFlags(cmd.Flags(), &o)
	return cmd
}

// progressTo returns where progress goes: not among JSON.
func (t *tool) progressTo() io.Writer {
	if t.output == outputJSON {
		return t.env.Stderr
	}
	return t.env.Stdout
}

// printReport prints what there is of a report, and passes the error on.
func (t *tool) printReport(r *lab.Report, err error) error {
	if r == nil {
		return err
	}
	return errors.Join(err, t.print(r, r.Write))
}

// labReceiveCommand and labSendCommand are the ends of a TCP transfer that
// "lab up" runs inside the machines.
func (t *tool) labReceiveCommand() *cobra.Command {
	var listen string
	cmd := &cobra.Command{
		Use: "receive", Hidden: true, Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			address, err := netip.ParseAddrPort(listen)
			if err != nil {
				return usagef("--listen: %w", err)
			}
			return lab.Receive(cmd.Context(), t.env.Stdout, address)
		},
	}
	cmd.Flags().StringVar(&listen, "listen", "", "address:port to listen on")
	return cmd
}

func (t *tool) labSendCommand() *cobra.Command {
	var to string
	var bytes int64
	cmd := &cobra.Command{
		Use: "send", Hidden: true, Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			address, err := netip.ParseAddrPort(to)
			if err != nil {
				return usagef("--to: %w", err)
			}
			return lab.Send(cmd.Context(), t.env.Stdout, address, bytes)
		},
	}
	cmd.Flags().StringVar(&to, "to", "", "address:port to connect to")
	cmd.Flags().Int64Var(&bytes, "bytes", 1<<20, "number of bytes to send")
	return cmd
}
