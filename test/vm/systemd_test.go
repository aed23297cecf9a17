// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestUnitUnderSystemd runs the packaged unit under systemd, which is the first process of a
// container in the guest: what systemctl says and does, and that the unit leaves the daemon
// the rights that drivers need.
func TestUnitUnderSystemd(t *testing.T) {
	for driver, check := range map[string]string{
		"linux": "ip vrf | grep -q .",
		"ebpf":  "tc filter show dev tap2 ingress | grep -q bagpipe",
	} {
		t.Run(driver, func(t *testing.T) { underSystemd(t, driver, check) })
	}
}

// underSystemd does so for a driver for IP VPNs; check is a command that shows its work.
func underSystemd(t *testing.T, driver, check string) {
	t.Helper()
	unit, err := os.ReadFile(directory(t, "packaging/bagpipe-bgp.service"))
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Dir(buildProgram(t, "bagpipe-bgp"))
	for name, text := range map[string]string{
		"bagpipe-bgp.service": strings.NewReplacer("/usr/bin/bagpipe-bgp", dir+"/bagpipe-bgp", "/etc/bagpipe-bgp", dir, "WatchdogSec=60", "WatchdogSec=3").Replace(string(unit)),
		"bgp.conf":            "[BGP]\nlocal_address = 192.0.2.1\nmy_as = 64512\npeers = 192.0.2.2\n[DATAPLANE_DRIVER_EVPN]\ndataplane_driver = linux\n[DATAPLANE_DRIVER_IPVPN]\ndataplane_driver = " + driver + "\n",
		"test.target":         "[Unit]\nWants=check.service\n",
		"check.service":       "[Service]\nType=oneshot\nExecStart=/bin/bash " + dir + "/check\nStandardOutput=file:/tmp/share/out\nStandardError=inherit\n",
		"check":               strings.ReplaceAll(unitCheck, "CHECK", check),
		"start":               unitStart,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	g := guest{dir: "/", modules: []string{"ipv6", "veth", "bridge", "vxlan", "vrf", "mpls_router", "mpls_iptunnel", "ip_gre", "cls_bpf", "sch_ingress"}, timeout: 4 * time.Minute}
	out := mustRun(t, g, "/bin/bash", filepath.Join(dir, "start"), dir)
	if !strings.Contains(out, "\nall is well\n") {
		t.Errorf("the guest said:\n%s", tail(out))
	}
}

// unitStart makes what systemd needs and starts it.
const unitStart = `set -eu
mkdir -p /run/systemd/system
mount -t tmpfs tmpfs /var/lib; mount -t tmpfs tmpfs /var/log
ip link add up0 type veth peer name up1; ip link set up1 up; ip address add 192.0.2.1/24 dev up0; ip link set up0 up
cp "$1"/*.service "$1"/*.target /run/systemd/system/
unshare --pid --fork --mount --mount-proc --cgroup env container=test SYSTEMD_LOG_LEVEL=info /lib/systemd/systemd --system --unit=test.target --log-target=console || true
cat /tmp/share/out
grep -q "all is well" /tmp/share/out
`

// unitCheck runs in the container. It ends with the container, whatever comes.
const unitCheck = `set -eu
trap 'systemctl status --no-pager bagpipe-bgp | head -12; journalctl -b --no-pager | grep level= | tail -30; systemctl exit 0' EXIT
state() { systemctl show -P "$1" bagpipe-bgp; }
until_() { echo "$1"; for _ in $(seq 300); do if eval "$1"; then return 0; fi; sleep 0.1; done; echo "never: $1"; return 1; }
attach() { curl -sf --max-time 10 -H 'Content-Type: application/json' http://127.0.0.1:8082/attach_localport -d "$1"; }

ip link add tap1 type veth peer name vm1; ip link set tap1 up
ip link add tap2 type veth peer name vm2; ip link set tap2 up
systemctl start bagpipe-bgp # returns when the API answers
number=$(curl -sf http://127.0.0.1:8082/ping)
state StatusText | grep '0 VPN instances, 0 endpoints'
attach '{"vpn_type":"evpn","vpn_instance_id":"red","mac_address":"02:00:00:00:00:01","ip_address":"198.51.100.1","local_port":"tap1","import_rt":"64512:1","export_rt":"64512:1"}'
attach '{"vpn_type":"ipvpn","vpn_instance_id":"blue","mac_address":"02:00:00:00:00:02","ip_address":"203.0.113.2/24","gateway_ip":"203.0.113.1","local_port":"tap2","import_rt":"64512:2","export_rt":"64512:2"}'
until_ "systemctl show -P StatusText bagpipe-bgp | grep '2 VPN instances, 2 endpoints'"
ip -d link | grep -q 'alias bagpipe evpn red'
CHECK
curl -sf http://127.0.0.1:8082/looking-glass/vpns/dataplane/problems | grep -qx '\[\]'

systemctl reload bagpipe-bgp
first=$(state MainPID)
kill -9 "$first"
until_ '[ "$(state ActiveState)" = active ] && [ "$(state MainPID)" != '"$first"' ]'
test "$(curl -sf http://127.0.0.1:8082/ping)" = "$number" # kept in the StateDirectory
until_ "systemctl show -P StatusText bagpipe-bgp | grep '2 VPN instances, 2 endpoints'"

kill -STOP "$(state MainPID)" # the watchdog finds out, 3 s here
until_ '[ "$(state NRestarts)" = 2 ] && [ "$(state ActiveState)" = active ]'
test "$(curl -sf http://127.0.0.1:8082/ping)" = "$number"

systemctl restart bagpipe-bgp
test "$(curl -sf http://127.0.0.1:8082/ping)" = "$number"
systemctl stop bagpipe-bgp
test "$(state Result)" = success
ip -d link | grep -q 'alias bagpipe evpn red' # forwarding stays
echo all is well
`
