// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/bagpipe-vpn/bagpipe/client"
)

// attached is the result of "bagpipe attach" and "bagpipe detach" in JSON.
type attached struct {
	Action  string               `json:"action"`
	Request client.AttachRequest `json:"request"`
}

func (t *tool) attachCommand() *cobra.Command {
	cmd := t.endpointCommand("attach", "attached", "to", true,
		func(ctx context.Context, c *client.Client, req client.AttachRequest) error {
			return c.Attach(ctx, req)
		})
	cmd.Short = "Attach an endpoint to a VPN instance"
	cmd.Long = "Attach plugs a MAC and IP address into a VPN instance through a local port. The instance is\n" +
		"made when it is the first. Attaching again with other route targets changes the instance.\n\n" +
		"A local port \"netns\" makes a network namespace with an interface that is plugged in; this needs root."
	cmd.Example = "  bagpipe attach --type evpn --instance red --vni 100 --rt 64512:100 \\\n" +
		"      --local-port tap1 --mac 00:00:5e:00:53:01 --ip 198.51.100.11/24\n" +
		"  bagpipe attach --type ipvpn --instance blue --local-port netns --netns test1 --ip 198.51.100.1"
	return cmd
}

func (t *tool) detachCommand() *cobra.Command {
	cmd := t.endpointCommand("detach", "detached", "from", false,
		func(ctx context.Context, c *client.Client, req client.AttachRequest) error {
			return c.Detach(ctx, req.Detach())
		})
	cmd.Short = "Detach an endpoint from a VPN instance"
	cmd.Long = "Detach takes an endpoint out of its VPN instance, which ends with its last endpoint.\n" +
		"It takes the options of attach; those that do not identify the endpoint have no effect."
	cmd.Example = "  bagpipe detach --type evpn --instance red --local-port tap1 --mac 00:00:5e:00:53:01 --ip 198.51.100.11/24"
	return cmd
}

type endpointCall func(context.Context, *client.Client, client.AttachRequest) error

func (t *tool) endpointCommand(use, done, preposition string, attach bool, call endpointCall) *cobra.Command {
	var o endpointOptions
	var server serverOptions
	cmd := &cobra.Command{
		Use:  use,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			req, err := t.endpoint(cmd.Context(), &o, &server, attach, call)
			if err != nil {
				return err
			}
			return t.print(attached{done, req}, func(w io.Writer) error {
				endpoint := strings.TrimSpace(req.MACAddress + " " + req.IPAddress)
				_, err := fmt.Fprintf(w, "%s %s on %s %s %s\n", done, endpoint, o.port, preposition, req.VPNInstanceID)
				return err
			})
		},
	}
	server.addFlags(cmd.Flags(), t.env)
	o.addFlags(cmd.Flags(), newNames)
	cmd.Flags().StringVar(&o.linuxBridge, "linuxbr", "", "existing Linux `bridge` that the port is in (evpn only)")
	cmd.Flags().StringVar(&o.advertiseAs, "advertise-as", "", "announce the prefixes of a new instance as vpn, evpn (type 5) or both (ipvpn only; default: vpn)")
	cmd.Flags().StringVar(&o.description, "description", "", "description of the endpoint")
	cmd.Flags().StringVar(&o.instDescription, "instance-description", "", "description of the instance")
	return cmd
}

func (t *tool) endpoint(ctx context.Context, o *endpointOptions, server *serverOptions, attach bool, call endpointCall) (client.AttachRequest, error) {
	if _, err := o.complete(); err != nil {
		return client.AttachRequest{}, err
	}
	c, err := server.client()
	if err != nil {
		return client.AttachRequest{}, err
	}
	port, err := o.plug(ctx, t.env, attach)
	if err != nil {
		return client.AttachRequest{}, err
	}
	req := o.request(port)
	return req, call(ctx, c, req)
}
