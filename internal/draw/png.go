// SPDX-License-Identifier: Apache-2.0

package draw

import (
	"context"
	"slices"

	"github.com/goccy/go-graphviz"
	"github.com/goccy/go-graphviz/gvc"
)

// newGraphviz returns a Graphviz that draws PNG by pngRenderer.
func newGraphviz(ctx context.Context) (*graphviz.Graphviz, error) {
	render, err := gvc.NewRenderPlugin(ctx, "png", pngRenderer{&gvc.ImageRenderer{DefaultRenderEngine: new(gvc.DefaultRenderEngine)}})
	if err != nil {
		return nil, err
	}
	device, err := gvc.PNGDevicePlugin(ctx)
	if err != nil {
		return nil, err
	}
	return graphviz.NewWithPlugins(ctx, render, device)
}

// pngRenderer is the library's renderer for pixels, but for one fault: the library
// (0.2.10) calls every shape filled, so lines become areas, and shapes without a
// fill vanish. What to fill is found out here.
type pngRenderer struct{ *gvc.ImageRenderer }

// Polygon implements gvc.RenderEngine.
func (r pngRenderer) Polygon(ctx context.Context, job *gvc.Job, points []*gvc.PointFloat, _ bool) error {
	return shape(job, func(filled bool) error { return r.ImageRenderer.Polygon(ctx, job, points, filled) })
}

// Ellipse implements gvc.RenderEngine.
func (r pngRenderer) Ellipse(ctx context.Context, job *gvc.Job, points []*gvc.PointFloat, _ bool) error {
	return shape(job, func(filled bool) error { return r.ImageRenderer.Ellipse(ctx, job, points, filled) })
}

// BezierCurve implements gvc.RenderEngine.
func (r pngRenderer) BezierCurve(ctx context.Context, job *gvc.Job, points []*gvc.PointFloat, _ bool) error {
	return r.ImageRenderer.BezierCurve(ctx, job, points, false)
}

// shape draws the inside of a shape if it has one, then its outline. The shapes of
// edges are the heads of arrows, that of the graph is the background.
func shape(job *gvc.Job, draw func(filled bool) error) error {
	o := job.Object()
	switch {
	case o.Type() == gvc.RootGraphObjectType:
		return draw(true)
	case o.Type() == gvc.EdgeObjectType, slices.Contains(o.RawStyle(), "filled"):
		if err := draw(true); err != nil {
			return err
		}
	}
	return draw(false)
}
