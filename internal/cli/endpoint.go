// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"net"
	"net/netip"
	"strings"

	"github.com/spf13/pflag"

	"github.com/bagpipe-vpn/bagpipe/client"
)

// Defaults for what an attachment leaves out, all as in the original.
const (
	defaultInstance = "bagpipe-test"
	defaultMAC      = "52:54:00:99:99:22"
	defaultBridge   = "br-int"
	defaultInside   = "tovpn"
	defaultRTIPVPN  = "64512:512"
	defaultRTEVPN   = "64512:513"
)

// optionNames are the options whose names differ between the old command,
// where --port is a local port, and the new one, where it is the API's.
type optionNames struct {
	vpnType, instance, port string
}

var (
	oldNames = optionNames{vpnType: "network-type", instance: "vpn-instance-id", port: "port"}
	newNames = optionNames{vpnType: "type", instance: "instance", port: "local-port"}
)

// endpointOptions are the options that describe an attachment.
type endpointOptions struct {
	names optionNames

	vpnType, instance, port, ip, gateway, mac string

	rt, importRT, exportRT         []string
	direction                      string
	subnet, singleton              bool
	vni, localPref, lbOrder        uint32
	readvFrom, readvTo             []string
	redirect, attractTo, staticDst []string
	classifier                     client.Classifier

	ovsPreplug      bool
	ovsBridge       string
	ovsVLAN         int
	netns, inside   string
	description     string
	instDescription string
	linuxBridge     string
	advertiseAs     string
}

// addFlags registers the options that the old and the new command have.
func (o *endpointOptions) addFlags(fs *pflag.FlagSet, names optionNames) {
	o.names = names
	fs.StringVar(&o.vpnType, names.vpnType, "", "kind of VPN: ipvpn or evpn (required)")
	fs.StringVar(&o.instance, names.instance, "", "VPN instance (default: ipvpn-bagpipe-test or evpn-bagpipe-test)")
	fs.StringVar(&o.port, names.port, "", "local port: an interface, netns, netns:`IF`, or evpn:INSTANCE (required)")
	fs.StringVar(&o.ip, "ip", "", "`address`[/length] of the endpoint, /24 or /64 if not said (required, but for a MAC alone in an evpn)")
	fs.StringVar(&o.gateway, "gateway-ip", "", "gateway `address` (default: the second last of the subnet)")
	fs.StringVar(&o.mac, "mac", "", "MAC `address` (default: the interface's for netns, else "+defaultMAC+" for ipvpn)")

	fs.StringArrayVar(&o.rt, "rt", nil, "route target `AS:N` to import and export, repeatable (default: "+
		defaultRTIPVPN+" for ipvpn, "+defaultRTEVPN+" for evpn)")
	fs.StringArrayVar(&o.importRT, "import-rt", nil, "route target `AS:N` to import, repeatable")
	fs.StringArrayVar(&o.exportRT, "export-rt", nil, "route target `AS:N` to export, repeatable")
	fs.StringVar(&o.direction, "direction", client.Both, "traffic to carry: to-port, from-port or both")
	fs.BoolVar(&o.singleton, "advertise-singleton", false, "announce the address alone (default)")
	fs.BoolVar(&o.subnet, "advertise-subnet", false, "announce the whole subnet of the address")
	fs.Uint32Var(&o.vni, "vni", 0, "VNI of a new instance (default: chosen by the daemon)")
	fs.Uint32Var(&o.localPref, "local-pref", 0, "LOCAL_PREF of the routes (default: 100)")

	fs.BoolVar(&o.ovsPreplug, "ovs-preplug", false, "plug the port in an OVS bridge first (ipvpn only)")
	fs.StringVar(&o.ovsBridge, "ovs-bridge", defaultBridge, "OVS `bridge` to plug in")
	fs.IntVar(&o.ovsVLAN, "ovs-vlan", 0, "`VLAN` of the traffic on the OVS port")
	fs.StringVar(&o.netns, "netns", "", "network `namespace` to make for a netns port (default: the VPN instance)")
	fs.StringVar(&o.inside, "if2vpn", defaultInside, "`interface` inside the namespace")

	fs.StringArrayVar(&o.readvFrom, "readv-from-rt", nil, "re-advertise routes with this route target `AS:N`, repeatable")
	fs.StringArrayVar(&o.readvTo, "readv-to-rt", nil, "route target `AS:N` to re-advertise with, repeatable")
	fs.StringArrayVar(&o.redirect, "redirect-rts", nil, "attract traffic by FlowSpec routes with this `AS:N`, repeatable; needs a classifier option")
	fs.StringVar(&o.classifier.SourcePrefix, "source-prefix", "", "classifier: source `prefix`")
	fs.StringVar(&o.classifier.DestinationPrefix, "destination-prefix", "", "classifier: destination `prefix`")
	fs.StringVar(&o.classifier.SourcePort, "source-port", "", "classifier: source `port` or range A:B")
	fs.StringVar(&o.classifier.DestinationPort, "destination-port", "", "classifier: destination `port` or range A:B")
	fs.StringVar(&o.classifier.Protocol, "protocol", "", "classifier: IP `protocol`")
	fs.StringArrayVar(&o.attractTo, "attract-to-rt", nil, "route target `AS:N` that attracted traffic is sent by")
	fs.StringArrayVar(&o.staticDst, "static-destination-prefix", nil, "destination `prefix` to attract, repeatable; goes with --attract-to-rt")
	fs.Uint32Var(&o.lbOrder, "lb-consistent-hash-order", 0, "place in the order for consistent load balancing")
}

// isNetns tells whether the port is one that the tool makes itself.
func (o *endpointOptions) isNetns() bool { return strings.HasPrefix(o.port, "netns") }

// evpn returns the E-VPN instance that the port stands for.
func (o *endpointOptions) evpn() (string, bool) { return strings.CutPrefix(o.port, "evpn:") }

// complete checks the options and fills in defaults. It tells whether it chose
// the gateway.
func (o *endpointOptions) complete() (gatewayChosen bool, err error) {
	if err := o.checkPort(); err != nil {
		return false, err
	}
	if err := o.checkTraffic(); err != nil {
		return false, err
	}
	if o.instance == "" {
		o.instance = o.vpnType + "-" + defaultInstance
	}
	if o.netns == "" {
		o.netns = o.instance
	}
	if len(o.rt)+len(o.importRT)+len(o.exportRT) == 0 {
		o.rt = []string{defaultRTIPVPN}
		if o.vpnType == client.EVPN {
			o.rt = []string{defaultRTEVPN}
		}
	}
	if o.mac == "" && !o.isNetns() {
		if o.vpnType == client.EVPN {
			return false, usagef("--mac is needed for evpn, unless the port is a netns")
		}
		o.mac = defaultMAC
	}
	return o.completeAddress()
}

// macOnly tells whether the endpoint may do without an address: the MAC alone is
// announced. The original's command has no such endpoints.
func (o *endpointOptions) macOnly() bool {
	return o.names == newNames && o.vpnType == client.EVPN && !o.isNetns()
}

func (o *endpointOptions) completeAddress() (gatewayChosen bool, err error) {
	if o.ip == "" {
		return false, nil
	}
	if !strings.Contains(o.ip, "/") {
		addr, err := netip.ParseAddr(o.ip)
		if err != nil {
			return false, usagef("--ip: %w", err)
		}
		o.ip += "/24"
		if addr.Is6() {
			o.ip = strings.TrimSuffix(o.ip, "/24") + "/64"
		}
	}
	prefix, err := netip.ParsePrefix(o.ip)
	if err != nil {
		return false, usagef("--ip: %w", err)
	}
	if o.gateway != "" {
		if _, err := netip.ParseAddr(o.gateway); err != nil {
			return false, usagef("--gateway-ip: %w", err)
		}
		return false, nil
	}
	gw, ok := secondLast(prefix)
	if ok {
		o.gateway = gw.String()
	}
	return ok, nil
}

// secondLast returns the second last address of a subnet; a subnet of one
// address has none.
func secondLast(p netip.Prefix) (netip.Addr, bool) {
	if p.IsSingleIP() {
		return netip.Addr{}, false
	}
	last := p.Masked().Addr().AsSlice()
	for i := range last {
		if host := 8*(i+1) - p.Bits(); host > 0 {
			last[i] |= byte(1<<min(host, 8) - 1)
		}
	}
	addr, _ := netip.AddrFromSlice(last)
	return addr.Prev(), true
}

func (o *endpointOptions) checkPort() error {
	switch evpn, isEVPN := o.evpn(); {
	case o.vpnType == "":
		return usagef("--%s is needed: ipvpn or evpn", o.names.vpnType)
	case o.vpnType != client.IPVPN && o.vpnType != client.EVPN:
		return usagef("--%s must be ipvpn or evpn, not %q", o.names.vpnType, o.vpnType)
	case o.port == "":
		return usagef("--%s is needed", o.names.port)
	case isEVPN && o.vpnType == client.EVPN:
		return usagef("--%s evpn:... plugs an E-VPN into an ipvpn, not into an evpn", o.names.port)
	case isEVPN && evpn == "":
		return usagef("--%s evpn: must name an E-VPN instance", o.names.port)
	case o.ovsPreplug && (o.vpnType != client.IPVPN || isEVPN):
		return usagef("--ovs-preplug is for an interface in an ipvpn only")
	case o.ip == "" && !o.macOnly():
		return usagef("--ip is needed")
	}
	if o.mac != "" {
		if _, err := net.ParseMAC(o.mac); err != nil {
			return usagef("--mac: %w", err)
		}
	}
	return nil
}

func (o *endpointOptions) checkTraffic() error {
	classified := o.classifier != client.Classifier{}
	switch {
	case o.direction != client.Both && o.direction != client.ToPort && o.direction != client.FromPort:
		return usagef("--direction must be to-port, from-port or both, not %q", o.direction)
	case o.advertiseAs != "" && o.vpnType != client.IPVPN:
		return usagef("--advertise-as is for ipvpn only")
	case o.advertiseAs != "" && o.advertiseAs != client.AsVPN && o.advertiseAs != client.AsEVPN && o.advertiseAs != client.AsBoth:
		return usagef("--advertise-as must be vpn, evpn or both, not %q", o.advertiseAs)
	case o.subnet && o.singleton:
		return usagef("--advertise-singleton and --advertise-subnet exclude each other")
	case len(o.redirect) > 0 && !classified:
		return usagef("--redirect-rts needs a classifier: --source-prefix, --destination-prefix, " +
			"--source-port, --destination-port or --protocol")
	case len(o.redirect) == 0 && classified:
		return usagef("a classifier needs --redirect-rts")
	case len(o.redirect) == 0 && len(o.attractTo)+len(o.staticDst) > 0:
		return usagef("--attract-to-rt and --static-destination-prefix need --redirect-rts")
	case (len(o.attractTo) == 0) != (len(o.staticDst) == 0):
		return usagef("--attract-to-rt and --static-destination-prefix go together")
	}
	return nil
}

// request returns the attachment. The port and MAC address are those that a
// netns port has got.
func (o *endpointOptions) request(port client.LocalPort) client.AttachRequest {
	req := client.AttachRequest{
		VPNType: o.vpnType, VPNInstanceID: o.instance,
		MACAddress: o.mac, IPAddress: o.ip, GatewayIP: o.gateway, LocalPort: port,
		ImportRT:  append(append([]string{}, o.rt...), o.importRT...),
		ExportRT:  append(append([]string{}, o.rt...), o.exportRT...),
		Direction: o.direction, AdvertiseSubnet: o.subnet,
		VNI: o.vni, AdvertiseAs: o.advertiseAs, LocalPref: o.localPref, LBConsistentHashOrder: o.lbOrder,
		LinuxBridge: o.linuxBridge,
	}
	if o.description != "" {
		req.Description = o.description
	}
	if o.instDescription != "" {
		req.InstanceDescription = o.instDescription
	}
	if len(o.readvTo) > 0 {
		req.Readvertise = &client.Readvertise{FromRT: append([]string{}, o.readvFrom...), ToRT: o.readvTo}
	}
	if len(o.redirect) > 0 {
		req.AttractTraffic = &client.AttractTraffic{
			RedirectRTs: o.redirect, Classifier: o.classifier,
			ToRT: o.attractTo, StaticDestinationPrefixes: o.staticDst,
		}
	}
	return req
}
