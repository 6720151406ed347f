package gateway

import (
	"bytes"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/tidwall/gjson"
)

// checkMedia refuses a body that makes the worker fetch something from a host that is not in
// allowed. A URL in a request is fetched by vLLM, from inside our network, and vLLM's own
// allow-list was by-passed once by two parsers that read one URL differently (CVE-2026-24779):
// so what is not plainly an allowed host is refused.
func checkMedia(q *request, allowed []string) error {
	v := q.body
	// A key may be written with escapes, "image\u005furl"; those of ASCII begin with \u00.
	if !bytes.Contains(v, []byte("_url")) && !bytes.Contains(v, []byte(`"url"`)) && !bytes.Contains(v, []byte(`\u00`)) {
		return nil
	}
	var err error
	inPlace(v).ForEach(func(key, member gjson.Result) bool {
		if key.Str != "metadata" { // notes of the client, which nobody fetches
			err = walkMedia(member, allowed)
		}
		return err == nil
	})
	return err
}

// walkMedia looks at every member named url or …_url. Its depth is bounded by maxDepth.
func walkMedia(v gjson.Result, allowed []string) (err error) {
	if v.Type != gjson.JSON {
		return nil
	}
	v.ForEach(func(key, member gjson.Result) bool {
		switch {
		case member.Type == gjson.JSON:
			err = walkMedia(member, allowed)
		case member.Type == gjson.String && (key.Str == "url" || strings.HasSuffix(key.Str, "_url")):
			err = checkURL(member.Str, strings.Clone(key.Str), allowed)
		}
		return err == nil
	})
	return err
}

func checkURL(s, key string, allowed []string) error {
	if len(s) >= 5 && strings.EqualFold(s[:5], "data:") {
		return nil
	}
	u, err := url.Parse(s)
	switch {
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.User != nil || u.Opaque != "" ||
		strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r == '\\' || r == 0x7f }):
		return &badRequestError{"media must be a data: URL, or an http(s) URL of a host in media_domains", key}
	case !slices.ContainsFunc(allowed, func(host string) bool { return strings.EqualFold(host, u.Hostname()) }):
		return &badRequestError{fmt.Sprintf("media from host %q is refused: send it as a data: URL, or add the host to media_domains in the config", u.Hostname()), key}
	}
	return nil
}
