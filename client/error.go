// SPDX-License-Identifier: Apache-2.0

package client

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
)

// Error is a refusal by the daemon. A Code of 400 means that the request is
// wrong and that nothing was changed; 404 that there is no such object; 409 that
// the object is in a state in which the request cannot be carried out; 401 that the
// token is missing or wrong; 503 that the daemon has too much to do and has not
// begun with the request, which may be sent again.
type Error struct {
	// Code is the HTTP status.
	Code int `json:"code"`
	// Title is the text of the status, for example "Bad Request".
	Title string `json:"title"`
	// Description says what is wrong.
	Description string `json:"description"`
	// Body is the reply as it came.
	Body []byte `json:"-"`
}

// Error returns the description with the status.
func (e *Error) Error() string {
	if e.Description == "" {
		return fmt.Sprintf("%d %s", e.Code, e.Title)
	}
	return fmt.Sprintf("%d %s: %s", e.Code, e.Title, e.Description)
}

// newError makes an Error of a reply. A body that is not in the API's form, as
// a proxy or another server sends it, becomes the description.
func newError(status int, body []byte) *Error {
	e := &Error{}
	if err := json.Unmarshal(body, e); err != nil || e.Code == 0 {
		e = &Error{Description: strings.TrimSpace(string(body))}
	}
	e.Code, e.Body = status, body
	if e.Title == "" {
		e.Title = http.StatusText(status)
	}
	return e
}
