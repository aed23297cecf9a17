// SPDX-License-Identifier: Apache-2.0

package vethpair

import (
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ethtoolValue is struct ethtool_value of linux/ethtool.h.
type ethtoolValue struct{ cmd, data uint32 }

// FinishChecksums has the end of a pair in the E-VPN instance finish the checksums of
// what goes to the VRF, and cut segments: a switch in user space reads packets as they
// are, and machines leave both to hardware. It works in the network namespace of the
// calling thread; doing it twice changes nothing.
func FinishChecksums(p Pair) error {
	name := p.EVIPort()
	if err := setTXChecksum(name, 0); err != nil {
		return fmt.Errorf("join %q and %q: have device %s finish checksums: %w", p.EVI, p.VRF, name, err)
	}
	return nil
}

func setTXChecksum(name string, value uint32) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	v := &ethtoolValue{cmd: unix.ETHTOOL_STXCSUM, data: value}
	var req struct {
		name [unix.IFNAMSIZ]byte
		data unsafe.Pointer
		_    [16]byte
	}
	copy(req.name[:unix.IFNAMSIZ-1], name)
	req.data = unsafe.Pointer(v)
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&req)))
	runtime.KeepAlive(v)
	if errno != 0 {
		return errno
	}
	return nil
}
