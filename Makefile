# SPDX-License-Identifier: Apache-2.0
#
# make demo       set everything up and run two labs: each two nodes, a reflector, traffic
# make test       run all tests
# make help       the rest

SHELL := /bin/bash
GO ?= go
BIN := bin
OLD_NAMES := bagpipe-rest-attach bagpipe-looking-glass bagpipe-impex2dot bagpipe-fakerr bagpipe-bgp-cleanup
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2

# What the product needs at run time, and what the tests need beside it.
RUN_PACKAGES := iproute2 iputils-ping
TEST_PACKAGES := $(RUN_PACKAGES) gcc libc6-dev tcpdump curl procps bridge-utils \
	frr gobgpd python3-networking-bagpipe python3-exabgp bird2 exabgp openbgpd \
	openvswitch-switch ethtool clang-14 llvm-14 libbpf-dev user-mode-linux kmod \
	qemu-system-x86 busybox-static cpio systemd
BENCH_PACKAGES := iperf3

export CGO_ENABLED ?= 0

.PHONY: help
help: ## show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

.PHONY: build
build: ## build bin/bagpipe-bgp, bin/bagpipe and bin/bagpipe-dot, with links for the old command names
	@mkdir -p $(BIN)
	$(GO) build -trimpath -o $(BIN)/ ./cmd/...
	@for name in $(OLD_NAMES); do ln -sf bagpipe $(BIN)/$$name; done

.PHONY: demo
demo: run-packages build ## bring two labs up, E-VPN and IP VPN, and check that everything is reachable
	$(BIN)/bagpipe lab up
	$(BIN)/bagpipe lab up --name l3 --vpn ipvpn

.PHONY: demo-down
demo-down: build ## remove every trace of the labs
	$(BIN)/bagpipe lab down
	$(BIN)/bagpipe lab down --name l3

.PHONY: run-packages
run-packages:
	@packaging/need $(RUN_PACKAGES)

.PHONY: test-packages
test-packages:
	@packaging/need $(TEST_PACKAGES)

.PHONY: test
test: test-packages check unit integration fuzz-short ## run all tests (installs what they need)

.PHONY: check
check: ## formatting, vet, staticcheck, go.mod
	@out=$$(gofmt -s -l .); if [ -n "$$out" ]; then echo "gofmt -s is needed for:"; echo "$$out"; exit 1; fi
	$(GO) vet ./...
	$(GO) vet -tags vm ./...
	$(GO) run $(STATICCHECK) -tags vm ./...
	$(GO) mod tidy -diff

.PHONY: unit
unit: ## race-enabled tests of all packages but the integration tests
	CGO_ENABLED=1 $(GO) test -race -timeout 15m $$($(GO) list ./... | grep -v -e '/test/' -e '/bench$$')

.PHONY: integration
integration: build ## end-to-end tests, interoperation with others and between dataplanes, tests under another kernel
	$(GO) test -timeout 25m -p 1 -count=1 ./test/...

.PHONY: storm
storm: ## storm and random-event tests of the BGP engine at full size (about 3 minutes)
	BAGPIPE_STORM=full $(GO) test -timeout 20m -count=1 ./test/storm

# How long each scenario of `make soak` runs; they run at the same time.
BAGPIPE_SOAK ?= 30m

.PHONY: soak
soak: test-packages ## nodes under churn for BAGPIPE_SOAK (30m): nothing grows
	BAGPIPE_SOAK=$(BAGPIPE_SOAK) $(GO) test -timeout 24h -parallel 4 -count=1 -v -run Soak ./test/soak

.PHONY: crowd
crowd: ## 500 clients of the API with 10,000 endpoints, the daemon killed again and again
	BAGPIPE_CROWD=full $(GO) test -timeout 45m -count=1 -v -run '^TestCrowd$$' ./test/e2e

.PHONY: faults
faults: ## crash the daemon before, and fail, every call that writes state or the forwarding plane; long flaps and migrations (about 12 minutes)
	BAGPIPE_FAULTS=full $(GO) test -timeout 40m -count=1 -run 'Crash|Error|KernelOutOfMemory|NoDescriptors|TestMigration|TestReflectorFlaps' ./test/e2e

# Every fuzz target for a moment; `make fuzz` runs them longer.
FUZZTIME ?= 10m

.PHONY: fuzz-short
fuzz-short:
	@packaging/fuzz 2000x

.PHONY: fuzz
fuzz: ## every fuzz target for FUZZTIME (10m)
	@packaging/fuzz $(FUZZTIME)

.PHONY: fuzz-api
fuzz-api: ## requests made from a grammar against a running daemon for FUZZTIME (10m)
	BAGPIPE_FUZZ_API=$(FUZZTIME) $(GO) test -timeout 1h -count=1 -v -run '^TestAPIFuzz$$' ./test/e2e

.PHONY: bench
bench: test-packages ## run the benchmarks (docs/benchmarks.md)
	@packaging/need $(BENCH_PACKAGES)
	$(GO) test -run '^$$' -bench . -benchtime 1x -timeout 30m ./bench

.PHONY: clean
clean: ## remove what was built
	rm -rf $(BIN)
