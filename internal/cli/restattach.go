// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/spf13/pflag"

	"github.com/bagpipe-vpn/bagpipe/client"
)

// runRESTAttach is the original's bagpipe-rest-attach.
func runRESTAttach(ctx context.Context, env Env, args []string) error {
	var o endpointOptions
	server := serverOptions{}
	var attach, detach bool
	fs := pflag.NewFlagSet("bagpipe-rest-attach", pflag.ContinueOnError)
	fs.BoolVar(&attach, "attach", false, "attach a port")
	fs.BoolVar(&detach, "detach", false, "detach a port")
	o.addFlags(fs, oldNames)
	server.addAccessFlags(fs, env)
	help, err := parseOld(fs, env, "bagpipe-rest-attach (--attach | --detach) [option]...", args)
	switch {
	case help || err != nil:
		return err
	case attach == detach:
		return usagef("one of --attach and --detach is needed")
	case fs.NArg() > 0:
		return usagef("unexpected argument %q", fs.Arg(0))
	}
	chosen, err := o.complete()
	if err != nil {
		return err
	}
	if chosen {
		_, _ = fmt.Fprintf(env.Stdout, "using %s as gateway address\n", o.gateway)
	}
	c, err := server.client()
	if err != nil {
		return err
	}
	if attach && o.isNetns() {
		_, _ = fmt.Fprintf(env.Stdout, "Will plug local namespace %s into network\n", o.netns)
	}
	port, err := o.plug(ctx, env, attach)
	if err != nil {
		return err
	}
	name := port.LinuxIF
	if name == "" {
		name = o.port
	}
	_, _ = fmt.Fprintf(env.Stdout, "Local port: %s (%s)\n", name, o.mac)
	path := "attach_localport"
	if detach {
		path = "detach_localport"
	}
	return postOld(ctx, env, c, path, o.request(port))
}

// postOld sends the body that the original sends, and shows it and the reply
// as the original does.
func postOld(ctx context.Context, env Env, c *client.Client, path string, req client.AttachRequest) error {
	body, err := oldBody(req)
	if err != nil {
		return err
	}
	text := []byte(pythonJSON(body))
	_, _ = fmt.Fprintf(env.Stdout, "request: %s\n", pythonBytes(text))
	reply, err := c.Post(ctx, path, text)
	var refused *client.Error
	if errors.As(err, &refused) {
		_, _ = fmt.Fprintf(env.Stdout, "%s\n", refused.Body)
		_, _ = fmt.Fprintf(env.Stderr, "error %d, reason: %s\n", refused.Code, refused.Title)
		return errReported
	}
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(env.Stdout, "response: 200 %s\n", pythonBytes(reply))
	return err
}

// oldBody arranges a request as the original does: members that are always
// there, in its order.
func oldBody(req client.AttachRequest) (client.Object, error) {
	body := client.Object{
		{Name: "import_rt", Value: req.ImportRT},
		{Name: "export_rt", Value: req.ExportRT},
		{Name: "local_port", Value: req.LocalPort},
		{Name: "vpn_instance_id", Value: req.VPNInstanceID},
		{Name: "vpn_type", Value: req.VPNType},
		{Name: "gateway_ip", Value: nullIfEmpty(req.GatewayIP)},
		{Name: "mac_address", Value: req.MACAddress},
		{Name: "ip_address", Value: req.IPAddress},
		{Name: "advertise_subnet", Value: req.AdvertiseSubnet},
		{Name: "readvertise", Value: req.Readvertise},
		{Name: "attract_traffic", Value: client.Object{}},
		{Name: "lb_consistent_hash_order", Value: req.LBConsistentHashOrder},
		{Name: "vni", Value: req.VNI},
		{Name: "direction", Value: req.Direction},
	}
	if req.AttractTraffic != nil {
		body[10].Value = req.AttractTraffic
	}
	if req.LocalPref != 0 {
		body = append(body, client.Member{Name: "local_pref", Value: req.LocalPref})
	}
	// Through text, so that only the types of an ordered tree are left.
	text, err := json.Marshal(body)
	if err != nil {
		return nil, fmt.Errorf("encode request: %w", err)
	}
	tree, err := client.ParseJSON(text)
	if err != nil {
		return nil, fmt.Errorf("encode request: %w", err)
	}
	return tree.(client.Object), nil
}

func nullIfEmpty(s string) any {
	if s == "" {
		return nil
	}
	return s
}
