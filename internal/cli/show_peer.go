// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/bagpipe-vpn/bagpipe/client"
)

type peerRow struct {
	Peer        string      `json:"peer"`
	AS          json.Number `json:"as,omitempty"`
	State       string      `json:"state"`
	Since       string      `json:"since"`
	Families    []string    `json:"families"`
	Stale       []string    `json:"stale"`
	BFD         string      `json:"bfd,omitempty"`
	HeldDown    string      `json:"held_down,omitempty"`
	Description string      `json:"description,omitempty"`
}

func (s *shower) peers(ctx context.Context, words []string) error {
	if len(words) > 0 {
		return s.tree(ctx, append([]string{"bgp", "peers"}, words...))
	}
	list, err := s.list(ctx, "bgp", "peers")
	if err != nil {
		return err
	}
	rows := []peerRow{}
	for _, item := range list {
		o, err := s.get(ctx, "bgp", "peers", item.Text("id"))
		if gone(err) {
			continue
		}
		if err != nil {
			return err
		}
		rows = append(rows, peerRow{
			Peer: item.Text("id"), AS: number(o.Object("as_info"), "peer"), State: item.Text("state"),
			Since: o.Object("protocol").Text("last_transition_time"), Families: families(o),
			Stale: column(staleFamilies(o), "family"), BFD: o.Object("bfd").Text("state"),
			HeldDown: o.Text("held_down"), Description: o.Text("description"),
		})
	}
	return s.print(rows, func(w io.Writer) error {
		var cells [][]string
		for _, r := range rows {
			cells = append(cells, []string{r.Peer, r.AS.String(), r.State, r.Since, strings.Join(r.Families, " "),
				strings.Join(r.Stale, " "), r.BFD, r.HeldDown, r.Description})
		}
		return table(w, "PEER|AS|STATE|SINCE|FAMILIES|STALE|BFD|HELD DOWN|DESCRIPTION", cells)
	})
}

// staleFamilies lists the families of which the daemon keeps routes for a peer
// that may be restarting.
func staleFamilies(peer client.Object) []client.Object {
	return objects(peer.Object("graceful_restart"), "stale")
}

// peer prints all about one peer: two tables, or what the daemon sent.
func (s *shower) peer(ctx context.Context, words []string) error {
	path := []string{"bgp", "peers", words[0]}
	o, err := s.get(ctx, path...)
	if gone(err) {
		return fmt.Errorf("there is no BGP peer %s", words[0])
	}
	if err != nil {
		return err
	}
	return s.print(o, func(w io.Writer) error {
		if err := table(w, "ITEM|VALUE", peerItems(o)); err != nil {
			return err
		}
		if rows := familyRows(o); len(rows) > 0 {
			_, _ = fmt.Fprintln(w) // the table returns the error
			return table(w, "FAMILY|RECEIVED|ANNOUNCED|MAX PREFIXES|STALE UNTIL", rows)
		}
		return nil
	})
}

// peerItems are the rows about a peer as a whole.
func peerItems(o client.Object) [][]string {
	addresses, as, protocol := o.Object("peeringAddresses"), o.Object("as_info"), o.Object("protocol")
	capabilities, refresh := o.Object("capabilities"), o.Object("route_refresh")
	return [][]string{
		{"peer", addresses.Text("peer_address")},
		{"description", o.Text("description")},
		{"local address", addresses.Text("local_address")},
		{"AS", fmt.Sprintf("%s here, %s there", as.Text("local"), orDash(as.Text("peer")))},
		{"state", protocol.Text("state") + " since " + protocol.Text("last_transition_time")},
		{"held down", o.Text("held_down")},
		{"last error", protocol.Text("last_error")},
		{"last loss", lossText(o.Object("last_loss"))},
		{"hold time", protocol.Text("hold_time")},
		{"families", strings.Join(families(o), " ")},
		{"families disabled by a fault", strings.Join(texts(o.Object("families"), "disabled"), " ")},
		{"capabilities here", capabilityText(capabilities.Object("sent"))},
		{"capabilities there", capabilityText(capabilities.Object("received"))},
		{"graceful restart", restartText(o.Object("graceful_restart"))},
		{"route refresh messages", orDash(refresh.Text("messages_received")) + " received, " + orDash(refresh.Text("messages_sent")) + " sent"},
		{"BFD", pathText(o.Object("bfd"))},
		{"TCP", transportText(o.Object("transport"))},
	}
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// lossText tells how the last session ended, "" when none has.
func lossText(loss client.Object) string {
	if loss == nil {
		return ""
	}
	text := "no NOTIFICATION"
	for _, way := range []string{"received", "sent"} {
		if n := loss.Object(way); n != nil {
			text = way + " " + n.Text("text")
		}
	}
	if is(loss, "graceful") {
		return text + "; routes were kept"
	}
	return text
}

// capabilityText names the capabilities of an OPEN.
func capabilityText(o client.Object) string {
	var names []string
	for _, name := range []string{"four_octet_as", "route_refresh", "enhanced_route_refresh", "extended_message"} {
		if is(o, name) {
			names = append(names, strings.ReplaceAll(name, "_", "-"))
		}
	}
	if g := o.Object("graceful_restart"); g != nil {
		names = append(names, "graceful-restart "+g.Text("restart_time")+" s")
	}
	if len(objects(o, "long_lived_graceful_restart")) > 0 {
		names = append(names, "long-lived-graceful-restart")
	}
	if len(objects(o, "extended_next_hops")) > 0 {
		names = append(names, "extended-next-hop")
	}
	if host := o.Text("hostname"); host != "" {
		names = append(names, "hostname "+host)
	}
	return strings.Join(names, ", ")
}

func restartText(o client.Object) string {
	switch {
	case o == nil:
		return ""
	case !is(o, "enabled"):
		return "off"
	case !is(o, "negotiated"):
		return "on, not negotiated"
	}
	keep := strings.Join(texts(o, "we_keep"), " ")
	if keep == "" {
		keep = "nothing"
	}
	if is(o, "peer_keeps") {
		return "we keep " + keep + ", the peer keeps ours"
	}
	return "we keep " + keep + ", the peer keeps nothing"
}

func pathText(o client.Object) string {
	if o == nil {
		return ""
	}
	text := fmt.Sprintf("%s since %s, %s flaps, %s received, %s sent", o.Text("state"), o.Text("since"),
		o.Text("flaps"), o.Text("packets_received"), o.Text("packets_sent"))
	if d := o.Text("diagnostic"); d != "" && d != "no diagnostic" {
		text += ", " + d
	}
	return text
}

func transportText(o client.Object) string {
	var parts []string
	if is(o, "md5") {
		parts = append(parts, "MD5")
	}
	if hops := o.Text("ttl_security_hops"); hops != "" {
		parts = append(parts, "TTL security, hops: "+hops)
	}
	if device := o.Text("device"); device != "" {
		parts = append(parts, "device "+device)
	}
	if port := o.Text("local_port"); port != "" {
		parts = append(parts, "port "+port+" to "+o.Text("peer_port"))
	}
	return strings.Join(parts, ", ")
}

// familyRows are the rows about the families that a peer has something of.
func familyRows(o client.Object) [][]string {
	counts, used := o.Object("route_counts"), o.Object("max_prefixes").Object("used")
	until := map[string]string{}
	for _, f := range staleFamilies(o) {
		until[f.Text("family")] = f.Text("until") + " (" + f.Text("stage") + ")"
	}
	var rows [][]string
	for _, f := range texts(o.Object("families"), "configured") {
		received, announced := counts.Object("received").Text(f), counts.Object("announced").Text(f)
		if received == "" && announced == "" && until[f] == "" {
			continue
		}
		full := ""
		if percent := used.Object(f).Text("percent"); percent != "" {
			full = percent + " % of " + o.Object("max_prefixes").Text("limit")
		}
		rows = append(rows, []string{f, received, announced, full, until[f]})
	}
	return rows
}

// objects returns a member that is a list of objects.
func objects(o client.Object, name string) []client.Object {
	v, _ := o.Get(name)
	items, _ := v.([]any)
	var list []client.Object
	for _, item := range items {
		if sub, ok := item.(client.Object); ok {
			list = append(list, sub)
		}
	}
	return list
}

// column returns one member of each object, as text.
func column(list []client.Object, name string) []string {
	out := []string{}
	for _, o := range list {
		out = append(out, o.Text(name))
	}
	return out
}

// is tells whether a member is true.
func is(o client.Object, name string) bool {
	v, _ := o.Get(name)
	return v == true
}

// completionTime bounds how long a shell waits for the daemon.
const completionTime = 2 * time.Second

// completePeers completes a first argument with the addresses of the daemon's
// peers and their descriptions or states.
func completePeers(server *serverOptions) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		c, err := server.client()
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		ctx, cancel := context.WithTimeout(cmd.Context(), completionTime)
		defer cancel()
		s := shower{client: c}
		list, err := s.list(ctx, "bgp", "peers")
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		var out []cobra.Completion
		for _, item := range list {
			out = append(out, cobra.CompletionWithDesc(item.Text("id"), item.Text("state")))
		}
		return out, cobra.ShellCompDirectiveNoFileComp
	}
}
