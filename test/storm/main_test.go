// SPDX-License-Identifier: Apache-2.0

package storm

import (
	"os"
	"strconv"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// sizes are what full runs have more of.
type sizes struct {
	flapRoutes    int
	flaps         int
	crowd         int // peers at once
	crowdRoutes   int // of each
	cycles        int // of load and withdraw
	cycleRoutes   int
	sequences     int // of random events
	events        int // of each
	stuckRoutes   int // for the peer that does not read
	dribbleRoutes int
}

// size returns the sizes of this run.
func size() sizes {
	if os.Getenv("BAGPIPE_STORM") == "full" {
		return sizes{
			flapRoutes: 50_000, flaps: 100, crowd: 200, crowdRoutes: 250,
			cycles: 20, cycleRoutes: 50_000, sequences: 400, events: 60, stuckRoutes: 50_000, dribbleRoutes: 1000,
		}
	}
	return sizes{
		flapRoutes: 3000, flaps: 40, crowd: 200, crowdRoutes: 20,
		cycles: 10, cycleRoutes: 10_000, sequences: 40, events: 40, stuckRoutes: 20_000, dribbleRoutes: 100,
	}
}

// seeds returns the seeds of the random-event test.
func seeds(tb testing.TB) []uint64 {
	tb.Helper()
	if text := os.Getenv("BAGPIPE_STORM_SEED"); text != "" {
		n, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			tb.Fatal(err)
		}
		return []uint64{n}
	}
	var all []uint64
	for n := range size().sequences {
		all = append(all, uint64(n+1))
	}
	return all
}
