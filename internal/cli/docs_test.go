// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"os"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// TestDocumentNamesEverything holds docs/cli.md to the commands and options
// that there are.
func TestDocumentNamesEverything(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../docs/cli.md")
	if err != nil {
		t.Fatal(err)
	}
	doc := string(text)
	var walk func(*cobra.Command)
	walk = func(cmd *cobra.Command) {
		if cmd.Hidden {
			return
		}
		if cmd.HasParent() && !strings.Contains(doc, cmd.Name()) {
			t.Errorf("command %s is missing", cmd.CommandPath())
		}
		cmd.Flags().VisitAll(func(f *pflag.Flag) {
			if !strings.Contains(doc, "--"+f.Name) && !strings.Contains(doc, "-"+f.Shorthand+" ") {
				t.Errorf("%s: option --%s is missing", cmd.CommandPath(), f.Name)
			}
		})
		for _, sub := range cmd.Commands() {
			walk(sub)
		}
	}
	walk((&tool{env: Env{}.withDefaults()}).root())
	for _, old := range []string{"bagpipe-rest-attach", "bagpipe-looking-glass", "bagpipe-impex2dot", "bagpipe-fakerr", "bagpipe-bgp-cleanup"} {
		if !strings.Contains(doc, "`"+old+"`") {
			t.Errorf("command %s is missing", old)
		}
	}
}
