// SPDX-License-Identifier: Apache-2.0

package graph

import (
	"os"
	"strings"
	"testing"
)

// TestExampleInDocs holds docs/cli.md to what the example's instances look like.
func TestExampleInDocs(t *testing.T) {
	t.Parallel()
	doc, err := os.ReadFile("../../docs/cli.md")
	if err != nil {
		t.Fatal(err)
	}
	if text := Text(read(t, "example")); !strings.Contains(string(doc), "--server node-b\n"+text+"```\n") {
		t.Errorf("docs/cli.md does not have\n%s", text)
	}
}
