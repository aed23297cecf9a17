// SPDX-License-Identifier: Apache-2.0

package draw

import (
	"bytes"
	"encoding/xml"
	"errors"
	"image"
	"image/color"
	"image/png"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// pictures returns the graphs that internal/graph is held to, by name.
func pictures(t *testing.T) map[string][]byte {
	t.Helper()
	files, err := filepath.Glob("../graph/testdata/*_dot.golden")
	if err != nil || len(files) == 0 {
		t.Fatalf("no graphs: %v", err)
	}
	graphs := map[string][]byte{}
	for _, f := range files {
		dot, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		graphs[strings.TrimSuffix(filepath.Base(f), "_dot.golden")] = dot
	}
	return graphs
}

func draw(t *testing.T, dot []byte, format string) []byte {
	t.Helper()
	picture, err := Draw(t.Context(), dot, format)
	if err != nil {
		t.Fatalf("%s: %v, of\n%.200s", format, err, dot)
	}
	return picture
}

// svgTexts returns all texts and tooltips of an SVG document, which must be
// well-formed.
func svgTexts(t *testing.T, doc []byte) []string {
	t.Helper()
	var texts []string
	in := ""
	for dec := xml.NewDecoder(bytes.NewReader(doc)); ; {
		tok, err := dec.Token()
		if errors.Is(err, io.EOF) {
			return texts
		}
		if err != nil {
			t.Fatalf("not well-formed: %v\n%s", err, doc)
		}
		switch tok := tok.(type) {
		case xml.StartElement:
			in = tok.Name.Local
			if in == "script" || in == "image" || in == "foreignObject" {
				t.Errorf("element %s in %s", in, doc)
			}
			for _, a := range tok.Attr {
				if a.Name.Local == "title" {
					texts = append(texts, a.Value)
				}
			}
		case xml.CharData:
			if in == "text" {
				texts = append(texts, string(tok))
			}
		case xml.EndElement:
			in = ""
		}
	}
}

// TestSVG looks for every route target, instance and port in the picture, under
// its whole name.
func TestSVG(t *testing.T) {
	t.Parallel()
	want := map[string][]string{
		"chain": {
			"64512:9", "64512:100", "64512:101", "64512:301", "64512:302", "64512:303", "node-a",
			"VRF net-left", "VRF 5a8c6b1e-hop-1", "VRF 5a8c6b1e-hop-2", "VRF net-right", "5a8c..hop-1", "5a8c..hop-2", "readv", "attract",
			"to-fw-left", "to-fw-right", "tap-fw0", "destinationPrefix=203.0.113.0/24 protocol=tcp destinationPort=443:443",
		},
		"evpn": {"64512:10", "64512:20", "EVI net-red-of-tenant-12", "VRF router", "EVI lost", "EVI alone", "tap1", "evpn1-ipvpn2"},
		"odd": {
			"64512:1", "70000L:1", "10.1.1.1:7", `0x8002:whatever"];}`, `node "x"`, `VRF quote " and \N`, `quot..nd \N`, "VRF {a|<b>}", "{a|<b>}",
			"VRF Zürich 東京 north", "Züri..north", `EVI bell\a\x1b[31m\u202e\n`, `bell\a\x1b[31m\u202e\n`, "EVI a&lt;b", "a&lt;b", "EVI x.y", "EVI x-y",
			`to-"p"`, `tap\`, "a b", "a-b", "a.b", `t\tx`,
		},
		"two":     {"64512:7", "64512:9", "64512:20", "64512:100", "node-a", "node-b", "VRF blue", "EVI red", "tap1", "tap2"},
		"none":    {},
		"example": {"64512:100", "64512:201", "64512:202", "64512:203", "64512:204", "VRF left", "EVI red", "VRF fw", "VRF right"},
	}
	for name, dot := range pictures(t) {
		doc := draw(t, dot, "svg")
		if got, want := bytes.Count(doc, []byte(`class="edge"`)), bytes.Count(dot, []byte(" -> ")); got != want {
			t.Errorf("%s: %d arrows of %d", name, got, want)
		}
		texts := svgTexts(t, doc)
		for _, w := range want[name] {
			if !slices.Contains(texts, w) {
				t.Errorf("%s: %q is not among %q", name, w, texts)
			}
		}
		if want[name] == nil {
			t.Errorf("%s: not in this test", name)
		}
	}
}

// TestPNG looks at the colours of a picture. It tells lines from areas, which go-graphviz mixes up by itself.
func TestPNG(t *testing.T) {
	t.Parallel()
	img, err := png.Decode(bytes.NewReader(draw(t, pictures(t)["chain"], "png")))
	if err != nil {
		t.Fatal(err)
	}
	total := img.Bounds().Dx() * img.Bounds().Dy()
	for _, tt := range []struct {
		what     string
		c        color.RGBA
		min, max int // per 10,000 pixels
	}{
		{"background", color.RGBA{0xff, 0xff, 0xff, 0xff}, 8000, 9900},
		{"route targets", color.RGBA{0xff, 0xf3, 0xc4, 0xff}, 20, 2000},
		{"VRFs", color.RGBA{0xd9, 0xe8, 0xf6, 0xff}, 50, 1000},
		{"lines and outlines", color.RGBA{0x20, 0x20, 0x20, 0xff}, 20, 300},
		{"attraction", color.RGBA{0xff, 0x20, 0x20, 0xff}, 1, 50},
	} {
		if n := count(img, tt.c) * 10000 / total; n < tt.min || n > tt.max {
			t.Errorf("%s: %d of 10,000 pixels, want %d to %d", tt.what, n, tt.min, tt.max)
		}
	}
}

// count counts pixels that are about of a colour.
func count(img image.Image, c color.RGBA) int {
	n := 0
	for y := img.Bounds().Min.Y; y < img.Bounds().Max.Y; y++ {
		for x := img.Bounds().Min.X; x < img.Bounds().Max.X; x++ {
			r, g, b, _ := img.At(x, y).RGBA()
			if near(r>>8, c.R) && near(g>>8, c.G) && near(b>>8, c.B) {
				n++
			}
		}
	}
	return n
}

func near(a uint32, b uint8) bool { return max(a, uint32(b))-min(a, uint32(b)) <= 0x20 }

// TestProgram runs bagpipe-dot, with a directory for temporary files in which it
// must leave nothing: see package nocache.
func TestProgram(t *testing.T) {
	t.Parallel()
	program := filepath.Join(t.TempDir(), "bagpipe-dot")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", program, "../../cmd/bagpipe-dot").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	tmp := t.TempDir()
	run := func(stdin string, args ...string) (string, error) {
		cmd := exec.CommandContext(t.Context(), program, args...)
		cmd.Env = append(os.Environ(), "TMPDIR="+tmp)
		cmd.Stdin = strings.NewReader(stdin)
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	out, err := run("digraph { a -> b }", "-Tsvg")
	if err != nil || !strings.Contains(out, "</svg>") {
		t.Errorf("got %v, %s", err, out)
	}
	left, err := os.ReadDir(tmp)
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	for _, tt := range []struct {
		stdin, args, want string
		status            int
	}{
		{"digraph { a -> ", "-Tpng", `^bagpipe-dot: read the graph: syntax error`, 1},
		{"red", "-Tsvg", `^bagpipe-dot: read the graph: syntax error in line 1 near 'red'`, 1},
		{" \n", "-Tsvg", `^bagpipe-dot: there is no graph\n$`, 1},
		{"digraph {}", "-Tgif", `^bagpipe-dot: usage: bagpipe-dot \[-Tsvg\|png\] <graph\.dot`, 2},
		{"digraph {}", "graph.dot", `^bagpipe-dot: usage: `, 2},
		{"digraph {}", "-x", `flag provided but not defined: -x`, 2},
	} {
		out, err := run(tt.stdin, tt.args)
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != tt.status || !regexp.MustCompile(tt.want).MatchString(out) {
			t.Errorf("%s: got %v, %s", tt.args, err, out)
		}
	}
}
