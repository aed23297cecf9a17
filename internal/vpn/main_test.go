// SPDX-License-Identifier: Apache-2.0

package vpn_test

import (
	"flag"
	"os"
	"testing"
)

// TestMain makes the property test run 1,000 sequences unless told otherwise.
func TestMain(m *testing.M) {
	for name, value := range map[string]string{"rapid.checks": "1000", "rapid.steps": "20"} {
		if err := flag.Set(name, value); err != nil {
			panic(err)
		}
	}
	flag.Parse()
	os.Exit(m.Run())
}
