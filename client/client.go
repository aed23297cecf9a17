// SPDX-License-Identifier: Apache-2.0

// Package client talks to the REST API of bagpipe-bgp: it attaches and detaches
// endpoints, operates BGP peers, reads the looking glass and asks whether the
// daemon is ready.
//
// A Client is made by New and may be used by several goroutines at once. A
// reply other than 200 comes back as an *Error; trouble on the way there (no
// server, time-out) as the error of net/http, so that errors.Is and errors.As
// work on it.
//
// Requests are plain structs with the names of the wire format. Members that
// are left at their zero value are not sent, apart from those that the API
// requires. The looking glass is not typed: its replies are an ordered tree,
// see ParseJSON, because what it shows depends on the drivers and its order
// carries meaning for a reader.
//
// This is the only package of the project made for import by others; its
// exported names are kept stable.
package client

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"
)

// DefaultBaseURL is where bagpipe-bgp listens unless it is configured otherwise.
const DefaultBaseURL = "http://127.0.0.1:8082"

// defaultTimeout bounds a call whose context has no deadline.
const defaultTimeout = 60 * time.Second

// maxReply bounds what is read of one reply: a looking glass with a million
// routes fits, a runaway server does not fill the memory.
const maxReply = 1 << 30

// Client is a connection to one daemon.
type Client struct {
	base  *url.URL
	http  *http.Client
	token func() (string, error)
}

// Option changes how New makes a Client.
type Option func(*settings)

type settings struct {
	base   string
	http   *http.Client
	socket string
	tls    *tls.Config
	token  func() (string, error)
}

// WithBaseURL sets the scheme, host and port of the daemon, as in DefaultBaseURL.
func WithBaseURL(base string) Option {
	return func(s *settings) { s.base = base }
}

// WithHTTPClient sets the HTTP client to use, with its transport and time-out.
// Without it requests never go through a proxy.
func WithHTTPClient(c *http.Client) Option {
	return func(s *settings) { s.http = c }
}

// WithUnixSocket sends all requests to a unix socket. It has no effect together
// with WithHTTPClient.
func WithUnixSocket(path string) Option {
	return func(s *settings) { s.socket = path }
}

// WithTLS sets the authorities to trust and the client's certificate; the base URL
// must be one of https. It has no effect together with WithHTTPClient.
func WithTLS(c *tls.Config) Option {
	return func(s *settings) { s.tls = c }
}

// WithToken sends a bearer token (RFC 6750) with each request. The function is
// called each time, so that a token may change: see TokenFile.
func WithToken(token func() (string, error)) Option {
	return func(s *settings) { s.token = token }
}

// TokenFile returns the first line of a file that is not empty, read each time.
func TokenFile(path string) func() (string, error) {
	return func() (string, error) {
		text, err := os.ReadFile(path)
		if err != nil {
			return "", fmt.Errorf("read token: %w", err)
		}
		token, _, _ := strings.Cut(strings.TrimSpace(string(text)), "\n")
		if token = strings.TrimSpace(token); token == "" {
			return "", fmt.Errorf("read token: %s is empty", path)
		}
		return token, nil
	}
}

// New makes a Client. It does not connect yet.
func New(opts ...Option) (*Client, error) {
	s := settings{base: DefaultBaseURL}
	for _, o := range opts {
		o(&s)
	}
	base, err := url.Parse(strings.TrimRight(s.base, "/"))
	if err != nil {
		return nil, fmt.Errorf("parse base URL: %w", err)
	}
	if (base.Scheme != "http" && base.Scheme != "https") || base.Host == "" {
		return nil, fmt.Errorf("parse base URL: %q is not http://host:port", s.base)
	}
	if s.tls != nil && base.Scheme != "https" {
		return nil, fmt.Errorf("base URL %q is not https://host:port, but there is a configuration of TLS", s.base)
	}
	if s.http == nil {
		s.http = &http.Client{Timeout: defaultTimeout, Transport: s.transport()}
	}
	return &Client{base: base, http: s.http, token: s.token}, nil
}

func (s *settings) transport() *http.Transport {
	dialer := &net.Dialer{Timeout: 10 * time.Second}
	t := &http.Transport{DialContext: dialer.DialContext, IdleConnTimeout: 30 * time.Second, TLSClientConfig: s.tls}
	if s.socket != "" {
		t.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "unix", s.socket)
		}
	}
	return t
}

// URL returns the address of a path of the API. Each segment is escaped, so
// that an instance id may hold any character.
func (c *Client) URL(segments ...string) string {
	escaped := make([]string, len(segments))
	for i, s := range segments {
		escaped[i] = url.PathEscape(s)
	}
	return c.base.String() + "/" + strings.Join(escaped, "/")
}

// Attach plugs one endpoint into a VPN instance, which is made if need be.
// Attaching again with other route targets changes the instance.
func (c *Client) Attach(ctx context.Context, req AttachRequest) error {
	return c.postJSON(ctx, "attach_localport", req)
}

// Detach unplugs one endpoint, or all of a MAC address of an E-VPN when the
// request has no IP address.
func (c *Client) Detach(ctx context.Context, req DetachRequest) error {
	return c.postJSON(ctx, "detach_localport", req)
}

// Ping returns a number that stays the same until the daemon has lost its
// attachments, which its clients must then send again.
func (c *Client) Ping(ctx context.Context) (*big.Int, error) {
	body, err := c.Get(ctx, c.URL("ping"))
	if err != nil {
		return nil, err
	}
	n, ok := new(big.Int).SetString(strings.TrimSpace(string(body)), 10)
	if !ok {
		return nil, fmt.Errorf("read ping reply: %q is not an integer", body)
	}
	return n, nil
}

// LookingGlass reads the object at a path of the looking glass, for example
// LookingGlass(ctx, "vpns", "instances"). See ParseJSON for the types of the
// result.
func (c *Client) LookingGlass(ctx context.Context, path ...string) (any, error) {
	body, err := c.Get(ctx, c.URL(append([]string{"looking-glass"}, path...)...))
	if err != nil {
		return nil, err
	}
	v, err := ParseJSON(body)
	if err != nil {
		return nil, fmt.Errorf("read looking glass %s: %w", strings.Join(path, "/"), err)
	}
	return v, nil
}

// Readiness says whether a daemon does its work fully, and if not, why.
type Readiness struct {
	Ready    bool        `json:"ready"`
	NotReady []Condition `json:"not_ready,omitempty"`
}

// Condition is something that keeps a daemon from being ready.
type Condition struct {
	Name   string `json:"name"`
	Reason string `json:"reason"`
}

// String returns the condition as "name: reason".
func (c Condition) String() string { return c.Name + ": " + c.Reason }

// Ready asks whether the daemon is ready. A daemon that answers that it is not
// is no error.
func (c *Client) Ready(ctx context.Context) (Readiness, error) {
	status, body, err := c.do(ctx, http.MethodGet, c.URL("readyz"), nil)
	if err != nil {
		return Readiness{}, err
	}
	switch status {
	case http.StatusOK:
		return Readiness{Ready: true}, nil
	case http.StatusServiceUnavailable:
		var r Readiness
		if err := json.Unmarshal(body, &r); err != nil || r.Ready {
			return Readiness{}, newError(status, body)
		}
		return r, nil
	default:
		return Readiness{}, newError(status, body)
	}
}

// Get reads any URL of the daemon, for example an href of the looking glass,
// and returns the body of the reply as it came.
func (c *Client) Get(ctx context.Context, target string) ([]byte, error) {
	return okBody(c.do(ctx, http.MethodGet, target, nil))
}

// Post sends a JSON document that the caller has made to a path of the API,
// for callers who must control its text, and returns the body of the reply.
func (c *Client) Post(ctx context.Context, path string, body []byte) ([]byte, error) {
	return okBody(c.do(ctx, http.MethodPost, c.URL(path), body))
}

func (c *Client) postJSON(ctx context.Context, path string, req any) error {
	body, err := json.Marshal(req)
	if err != nil {
		return fmt.Errorf("encode request for %s: %w", path, err)
	}
	_, err = c.Post(ctx, path, body)
	return err
}

func okBody(status int, body []byte, err error) ([]byte, error) {
	if err != nil {
		return nil, err
	}
	if status != http.StatusOK {
		return nil, newError(status, body)
	}
	return body, nil
}

func (c *Client) do(ctx context.Context, method, target string, body []byte) (int, []byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, target, bytes.NewReader(body))
	if err != nil {
		return 0, nil, fmt.Errorf("make request: %w", err)
	}
	req.Header.Set("Accept", "application/json")
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if err := c.authorize(req); err != nil {
		return 0, nil, err
	}
	res, err := c.http.Do(req)
	if err != nil {
		return 0, nil, err // names method and URL already
	}
	defer func() { _ = res.Body.Close() }()
	reply, err := io.ReadAll(io.LimitReader(res.Body, maxReply))
	if err != nil {
		return 0, nil, fmt.Errorf("read reply to %s %s: %w", method, target, err)
	}
	return res.StatusCode, reply, nil
}

// authorize adds the token to a request to the daemon, and to no other server
// that an href may lead to.
func (c *Client) authorize(req *http.Request) error {
	if c.token == nil || req.URL.Scheme != c.base.Scheme || req.URL.Host != c.base.Host {
		return nil
	}
	token, err := c.token()
	if err == nil {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	return err
}
