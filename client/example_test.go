// SPDX-License-Identifier: Apache-2.0

package client_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"

	"github.com/bagpipe-vpn/bagpipe/client"
)

func Example() {
	// Stands in for a daemon at client.DefaultBaseURL.
	daemon := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/attach_localport":
			_, _ = fmt.Fprint(w, "null")
		case "/looking-glass/summary":
			_, _ = fmt.Fprint(w, `{"BGP_established_peers": 1, "vpn_instances_count": 1}`)
		default:
			w.WriteHeader(http.StatusNotFound)
			_, _ = fmt.Fprint(w, `{"code": 404, "title": "Not Found", "description": "no such path"}`)
		}
	}))
	defer daemon.Close()

	ctx := context.Background()
	c, err := client.New(client.WithBaseURL(daemon.URL))
	if err != nil {
		fmt.Println(err)
		return
	}
	err = c.Attach(ctx, client.AttachRequest{
		VPNType:       client.EVPN,
		VPNInstanceID: "red",
		MACAddress:    "00:00:5e:00:53:01",
		IPAddress:     "198.51.100.11/24",
		LocalPort:     client.LocalPort{LinuxIF: "tap1"},
		ImportRT:      []string{"64512:100"},
		ExportRT:      []string{"64512:100"},
	})
	fmt.Println("attach:", err)

	summary, err := c.LookingGlass(ctx, "summary")
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, m := range summary.(client.Object) {
		fmt.Println(m.Name, m.Value)
	}

	_, err = c.LookingGlass(ctx, "nothing")
	var refused *client.Error
	if errors.As(err, &refused) {
		fmt.Println("refused:", refused.Code, refused.Description)
	}
	// Output:
	// attach: <nil>
	// BGP_established_peers 1
	// vpn_instances_count 1
	// refused: 404 no such path
}
