#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# build.sh [OBJECT] compiles the programs with clang 14, and without an argument
# also notes in vrf.sum of which sources and flags the committed object is made.
set -eu
cd "$(dirname "$0")"
CLANG=${CLANG:-clang-14} STRIP=${STRIP:-llvm-strip-14}
# The multiarch directory is for asm/types.h; nothing of it depends on the architecture.
FLAGS="-target bpf -mcpu=v3 -O2 -g -Wall -Wextra -Werror -Wno-unused-parameter -fdebug-prefix-map=$PWD=."
FLAGS="$FLAGS -I/usr/include/$(uname -m)-linux-gnu"
out=${1:-vrf.o}
$CLANG $FLAGS -c vrf.c -o "$out"
$STRIP -g "$out"
[ $# -eq 0 ] || exit 0
sha256sum build.sh layout.h packet.h reply.h steer.h tunnel.h vrf.c vrf.o > vrf.sum
