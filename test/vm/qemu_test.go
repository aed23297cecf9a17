// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestUnderQEMU runs what User-Mode Linux cannot, which has no FOU on tunnels, under
// the kernel that Debian installs. QEMU translates, so that no virtualisation of
// hardware is needed. The kernel is kept in the user's cache and not installed.
func TestUnderQEMU(t *testing.T) {
	modules := []string{"ipv6", "veth", "bridge", "vrf", "mpls_router", "mpls_iptunnel", "mpls_gso", "fou", "ipip", "cls_bpf", "sch_ingress"}
	for _, tt := range []struct{ name, dir, run string }{
		{"MPLS over UDP", "internal/dataplane/linuxvrf", "TestKernelTraffic/MPLS-in-UDP"},
		{"MPLS over UDP with eBPF", "test/interop", "TestKernelMPLSTogether/eBPF_UDP"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := machine{guest: guest{dir: directory(t, tt.dir), timeout: 5 * time.Minute, modules: modules}, root: debianKernel(t)}
			if strings.HasPrefix(tt.dir, "test/") {
				m.env = append(m.env, "BAGPIPE_TEST_DAEMON="+buildProgram(t, "bagpipe-bgp"))
			}
			start := time.Now()
			out, err := m.run(t.TempDir(), buildTest(t, m.dir), "-test.v", "-test.run", tt.run, "-test.timeout", "4m")
			t.Logf("QEMU ran for %v", time.Since(start).Round(time.Second))
			// One is the test, one the case in it.
			if err != nil || count(out, "--- PASS: ") < 2 || count(out, "--- SKIP: ") > 0 {
				t.Fatalf("the test failed, did not run or was skipped: %v; the guest said:\n%s", err, tail(out))
			}
		})
	}
}

// BenchmarkUnderQEMU compares the throughput of the kernel's MPLS with that of others. QEMU
// translates, so that only the ratios count.
func BenchmarkUnderQEMU(b *testing.B) {
	programs := build(b, directory(b, "."), "", "build", "./cmd/...")
	m := machine{
		guest: guest{
			dir: "/", timeout: 15 * time.Minute, env: []string{"BAGPIPE_BENCH_PROGRAMS=" + programs, "BAGPIPE_BENCH_SECONDS=2"},
			modules: []string{"ipv6", "veth", "bridge", "vxlan", "vrf", "mpls_router", "mpls_iptunnel", "mpls_gso", "ip_gre", "cls_bpf", "sch_ingress"},
		},
		root: debianKernel(b),
	}
	out, err := m.run(b.TempDir(), buildTest(b, directory(b, "bench")), "-test.run", "^$", "-test.bench", "KernelThroughput", "-test.benchtime", "1x")
	if err != nil {
		b.Fatalf("%v; the guest said:\n%s", err, tail(out))
	}
	b.Log("\n" + out)
	b.ReportMetric(0, "ns/op")
}

const busybox = "/bin/busybox"

// machine is a guest of QEMU.
type machine struct {
	guest
	root string // with /boot and /lib/modules of the guest's kernel
}

// run runs a program in a machine and returns its output. It fails unless the program
// ends well. The directory is for what the machine is made of.
func (m machine) run(dir string, args ...string) (out string, err error) {
	kernels, err := filepath.Glob(filepath.Join(m.root, "boot/vmlinuz-*"))
	if err != nil || len(kernels) != 1 {
		return "", fmt.Errorf("kernels in %s: %q, want one", m.root, kernels)
	}
	initramfs := filepath.Join(dir, "initramfs")
	if err := m.makeInitramfs(initramfs, strings.TrimPrefix(filepath.Base(kernels[0]), "vmlinuz-")); err != nil {
		return "", err
	}
	share := filepath.Join(dir, "share")
	if err := os.Mkdir(share, 0o755); err != nil {
		return "", err
	}
	if err := os.WriteFile(filepath.Join(share, "init"), []byte(m.script(args)), 0o755); err != nil {
		return "", err
	}
	// The machine ends with the thread that started it, so that none outlives the test.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	ctx, cancel := context.WithTimeout(context.Background(), m.timeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, "qemu-system-x86_64", "-M", "q35", "-accel", "tcg,thread=multi", "-cpu", "max", "-m", memory, "-smp", "2",
		"-nodefaults", "-no-reboot", "-display", "none", "-serial", "stdio", "-kernel", kernels[0], "-initrd", initramfs,
		"-append", "console=ttyS0 quiet loglevel=3 panic=-1 mitigations=off nokaslr tsc=unstable",
		"-virtfs", "local,path=/,mount_tag=root,security_model=none,readonly=on,multidevs=remap",
		"-virtfs", "local,path="+m.root+",mount_tag=kernel,security_model=none,readonly=on",
		"-virtfs", "local,path="+share+",mount_tag=share,security_model=none")
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	runErr := cmd.Run()
	out = strings.ReplaceAll(stdout.String(), "\r", "")
	status, err := os.ReadFile(filepath.Join(share, "status"))
	if err != nil {
		return out, errors.Join(errors.New("the guest did not run the program to its end"), ctx.Err(), runErr, errors.New(tail(stderr.String())))
	}
	if s := strings.TrimSpace(string(status)); s != "0" {
		return out, fmt.Errorf("exit status %q", s)
	}
	return out, nil
}

// makeInitramfs makes the first file system of the guest, which mounts the others.
func (m machine) makeInitramfs(file, release string) error {
	dir := file + ".d"
	if err := os.MkdirAll(filepath.Join(dir, "m"), 0o755); err != nil {
		return err
	}
	var loads []string
	for _, module := range []string{"virtio_pci", "9pnet_virtio", "9p"} {
		list, err := output("", "modprobe", "-d", m.root, "-S", release, "--show-depends", module)
		if err != nil {
			return err
		}
		for line := range strings.Lines(list) {
			// "insmod FILE", or "builtin NAME".
			f := strings.Fields(line)
			if len(f) < 2 || f[0] != "insmod" || slices.Contains(loads, "insmod /m/"+path.Base(f[1])) {
				continue
			}
			loads = append(loads, "insmod /m/"+path.Base(f[1]))
			if err := copyFile(f[1], filepath.Join(dir, "m", path.Base(f[1]))); err != nil {
				return err
			}
		}
	}
	if err := copyFile(busybox, filepath.Join(dir, "busybox")); err != nil {
		return err
	}
	const options = "-t 9p -o trans=virtio,version=9p2000.L,msize=262144"
	init := slices.Concat([]string{
		"#!/busybox sh",
		"/busybox mkdir -p /bin /proc /n; /busybox --install -s /bin; export PATH=/bin",
		"mount -t proc proc /proc",
	}, loads, []string{
		"mount " + options + ",cache=loose,ro root /n",
		"mount -t proc proc /n/proc; mount -t sysfs sys /n/sys; mount -t devtmpfs dev /n/dev",
		"for d in tmp run; do mount -t tmpfs tmpfs /n/$d; done",
		"mkdir /n/tmp/share /n/run/m",
		"mount " + options + ",cache=none share /n/tmp/share",
		"mount " + options + ",cache=loose,ro kernel /n/run/m",
		"umount /proc; exec switch_root /n /bin/bash /tmp/share/init",
		"",
	})
	if err := os.WriteFile(filepath.Join(dir, "init"), []byte(strings.Join(init, "\n")), 0o755); err != nil {
		return err
	}
	_, err := output(dir, "sh", "-c", "find . | cpio -o -H newc --quiet > "+quote(file))
	return err
}

// script is what the guest runs on its own root file system, which is this machine's.
func (m machine) script(args []string) string {
	return strings.Join([]string{
		"mkdir -p /dev/pts /dev/shm /run/netns /run/bin",
		"mount -t devpts devpts /dev/pts; mount -t tmpfs tmpfs /dev/shm; mount -t tmpfs tmpfs /var/tmp",
		`printf '#!/bin/sh\nexec /sbin/modprobe -d /run/m "$@"\n' > /run/bin/modprobe; chmod +x /run/bin/modprobe`,
		"echo /run/bin/modprobe > /proc/sys/kernel/modprobe",
		"export PATH=/run/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/tmp",
		"hostname qemu; ip link set lo up",
		"for m in " + strings.Join(m.modules, " ") + `; do modprobe $m || echo "module $m is not loaded"; done`,
		"cd " + quote(m.dir),
		m.command(args) + " 2>&1; echo $? > /tmp/share/status",
		"sync; echo o > /proc/sysrq-trigger; sleep 30",
		"",
	}, "\n")
}

// debianKernel returns a directory with the kernel that Debian installs now.
func debianKernel(t testing.TB) string {
	t.Helper()
	for program, pkg := range map[string]string{
		"qemu-system-x86_64": "qemu-system-x86", busybox: "busybox-static", "cpio": "cpio", "depmod": "kmod", "modprobe": "kmod",
	} {
		if _, err := exec.LookPath(program); err != nil {
			t.Fatalf("%v: install the Debian package %s", err, pkg)
		}
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := fetchKernel(filepath.Join(cache, "bagpipe-vm"))
	if err != nil {
		t.Fatalf("get Debian's kernel: %v", err)
	}
	return dir
}

// fetchKernel unpacks the kernel's package below a directory, unless it is there.
func fetchKernel(cache string) (string, error) {
	depends, err := output("", "apt-cache", "depends", "linux-image-amd64")
	if err != nil { // no lists of packages are here
		if _, err := output("", "apt-get", "update"); err != nil {
			return "", err
		}
		if depends, err = output("", "apt-cache", "depends", "linux-image-amd64"); err != nil {
			return "", err
		}
	}
	_, name, ok := strings.Cut(depends, "Depends: linux-image-")
	name, _, _ = strings.Cut(name, "\n")
	if !ok {
		return "", fmt.Errorf("linux-image-amd64 depends on %q, want a package linux-image-*: apt-get update", depends)
	}
	name = "linux-image-" + strings.TrimSpace(name)
	// 'URI' FILE SIZE HASH; the file's name has the version.
	uris, err := output("", "apt-get", "download", "--print-uris", name)
	if err != nil {
		return "", err
	}
	f := strings.Fields(uris)
	if len(f) < 2 || !strings.HasSuffix(f[1], ".deb") {
		return "", fmt.Errorf("package %s is at %q, want an address and a file", name, uris)
	}
	dir := filepath.Join(cache, strings.TrimSuffix(f[1], ".deb"))
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		return dir, err
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return "", err
	}
	half, err := os.MkdirTemp(cache, "half-made")
	if err != nil {
		return "", err
	}
	defer func() { _ = os.RemoveAll(half) }()
	if _, err := output(half, "sh", "-c", "apt-get -q download "+quote(name)+" && dpkg-deb -x *.deb root && depmod -b root $(ls root/lib/modules)"); err != nil {
		return "", err
	}
	err = os.Rename(filepath.Join(half, "root"), dir)
	if errors.Is(err, fs.ErrExist) || errors.Is(err, syscall.ENOTEMPTY) {
		err = nil // another run was faster
	}
	return dir, err
}

func copyFile(from, to string) error {
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, b, 0o755)
}

// output returns what a command writes.
func output(dir, name string, args ...string) (string, error) {
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, stderr.String())
	}
	return string(out), nil
}
