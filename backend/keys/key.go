package keys

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"math/big"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

// Key is a key as it is stored.
type Key struct {
	api.Key
	Hash  [sha256.Size]byte // of the whole text
	Old   [sha256.Size]byte // of the text before the last rotation
	Until time.Time         // the old text is good until then
}

const base62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

// Lengths of the two parts of a key's text. A secret of 32 characters has 190 bits.
const (
	idLen     = 8
	secretLen = 32
)

// NewID gives a new key's ID.
func NewID() string { return random(idLen) }

// NewText gives the text of a key with this ID: vd_ID_SECRET. It exists nowhere else.
func NewText(id string) string { return api.KeyText(id, random(secretLen)) }

func random(n int) string {
	b := make([]byte, n)
	for i := range b {
		// crypto/rand's reader never fails since Go 1.24: it ends the program instead.
		v, err := rand.Int(rand.Reader, big.NewInt(int64(len(base62))))
		if err != nil {
			panic(err)
		}
		b[i] = base62[v.Int64()]
	}
	return string(b)
}

// HashText gives the hash of a key's text as orders carry it.
func HashText(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

func parseHash(s string) (hash [sha256.Size]byte, err error) {
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != len(hash) {
		return hash, errors.New("hash: want 64 hexadecimal digits")
	}
	return [sha256.Size]byte(b), nil
}

// validName is also the rule of the config's key names: it is what labels and reports show.
var (
	validName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$`)
	validID   = regexp.MustCompile(`^[A-Za-z0-9]{4,32}$`)
)

// CheckName says what is wrong with a key's name; nil if nothing is.
func CheckName(name string) error {
	switch {
	case !validName.MatchString(name):
		return fmt.Errorf("the name %q cannot be used: up to 64 letters, digits, _ . and -, the first a letter or digit", name)
	case name == "console" || name == "load":
		return fmt.Errorf("the name %s is taken by vllmdeck's own requests", name)
	}
	return nil
}

// Names of an order's arguments for limits. An empty value takes a limit away.
const (
	ArgModels   = "models" // separated by commas
	ArgRequests = "rpm"
	ArgTokens   = "tpm"
	ArgParallel = "parallel"
	ArgDay      = "budget_day" // USD
	ArgMonth    = "budget_month"
	ArgPriority = "priority"
	ArgFailover = "failover"
	ArgCapture  = "capture" // on or off
	ArgExpires  = "expires" // RFC 3339
)

// Check says what is wrong with an order's arguments; nil if nothing is.
func Check(args map[string]string) error { return change(&Key{}, args) }

// change sets what args say in k. Arguments that are not there change nothing.
func change(k *Key, args map[string]string) error {
	for _, name := range slices.Sorted(maps.Keys(args)) { // the same mistake is said each time
		v := strings.TrimSpace(args[name])
		var err error
		switch l := &k.Limits; name {
		case ArgModels:
			l.Models, err = parseModels(v)
		case ArgRequests:
			l.Requests, err = parseCount(v)
		case ArgTokens:
			l.Tokens, err = parseCount(v)
		case ArgParallel:
			var n int64
			n, err = parseCount(v)
			l.Parallel = int(min(n, 1<<30))
		case ArgDay:
			l.Day, err = parseBudget(v)
		case ArgMonth:
			l.Month, err = parseBudget(v)
		case ArgPriority:
			l.Priority, err = parsePriority(v)
		case ArgFailover:
			l.Failover, err = parseFailover(v)
		case ArgCapture:
			k.Capture, err = parseSwitch(v)
		case ArgExpires:
			k.Expires, err = parseTime(v)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

// maxModels bounds the models of a key, in bytes: a key is shown with all of them.
const maxModels = 4 << 10

func parseModels(v string) ([]string, error) {
	var out []string
	for name := range strings.SplitSeq(v, ",") {
		name = strings.TrimSpace(name)
		switch {
		case name == "" || slices.Contains(out, name):
		case len(name) > 200 || strings.ContainsFunc(name, func(c rune) bool { return c <= ' ' || c == 0x7f }):
			return nil, fmt.Errorf("%q is no name of a model", name)
		default:
			out = append(out, name)
		}
	}
	if len(v) > maxModels {
		return nil, fmt.Errorf("a list of %d bytes: at most %d", len(v), maxModels)
	}
	if v != "" && len(out) == 0 {
		return nil, errors.New("no model is named")
	}
	return out, nil
}

func parseCount(v string) (int64, error) {
	if v == "" {
		return 0, nil
	}
	n, err := strconv.ParseInt(v, 10, 64)
	if err != nil || n < 1 || n > 1e15 {
		return 0, fmt.Errorf("want a whole number from 1, got %q", v)
	}
	return n, nil
}

func parseBudget(v string) (*api.Nanos, error) {
	if v == "" {
		return nil, nil
	}
	n, err := api.ParseUSD(v)
	if err != nil {
		return nil, err
	}
	if n <= 0 {
		return nil, fmt.Errorf("want more than 0 dollars, got %s", n)
	}
	return &n, nil
}

func parsePriority(v string) (string, error) {
	switch v {
	case api.PriorityHigh, api.PriorityLow:
		return v, nil
	case "", api.PriorityNormal:
		return "", nil
	}
	return "", fmt.Errorf("want high, normal or low, got %q", v)
}

func parseFailover(v string) (string, error) {
	switch v {
	case "", api.FailoverNever, api.FailoverDown, api.FailoverOverload:
		return v, nil
	}
	return "", fmt.Errorf("want never, down or overload, got %q", v)
}

func parseSwitch(v string) (bool, error) {
	switch v {
	case "on":
		return true, nil
	case "", "off":
		return false, nil
	}
	return false, fmt.Errorf("want on or off, got %q", v)
}

func parseTime(v string) (time.Time, error) {
	if v == "" {
		return time.Time{}, nil
	}
	t, err := time.Parse(time.RFC3339, v)
	if err != nil {
		return t, fmt.Errorf("want a time such as 2027-01-31T00:00:00Z, got %q", v)
	}
	return t, nil
}
