package config

import (
	"fmt"
	"math"
	"math/big"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

// USD is money in the config, read exactly from a decimal number of dollars.
type USD = api.Nanos

// Bytes is a size, written as a number with an optional unit: 512, 64KiB, 32MiB, 1GB.
type Bytes int64

// Secret is a value named by env:NAME or file:PATH. Its Value never prints.
type Secret struct {
	Ref string // as written; "" for none
	Val string // read at Load
}

// String gives the reference, never the value.
func (s Secret) String() string { return s.Ref }

// GoString keeps the value out of %#v too.
func (s Secret) GoString() string { return strconv.Quote(s.Ref) }

// MarshalText keeps the value out of JSON.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.Ref), nil }

// units of sizes, longest first where one ends another.
var units = []struct {
	name string
	size int64
}{
	{"KiB", 1 << 10},
	{"MiB", 1 << 20},
	{"GiB", 1 << 30},
	{"TiB", 1 << 40},
	{"kB", 1e3},
	{"KB", 1e3},
	{"MB", 1e6},
	{"GB", 1e9},
	{"TB", 1e12},
	{"B", 1},
	{"", 1},
}

// String writes the size in the largest unit that leaves a whole number.
func (b Bytes) String() string {
	for i := 3; i >= 0; i-- {
		if u := units[i]; b != 0 && int64(b)%u.size == 0 {
			return strconv.FormatInt(int64(b)/u.size, 10) + u.name
		}
	}
	return strconv.FormatInt(int64(b), 10)
}

var decimal = regexp.MustCompile(`^[0-9]{1,18}(\.[0-9]{1,18})?$`)

// parseBytes reads a size. Fractions of a unit are exact, and must come to whole bytes.
func parseBytes(text string) (_ Bytes, hint string, _ error) {
	t := strings.TrimSpace(text)
	for _, u := range units {
		number, ok := strings.CutSuffix(t, u.name)
		number = strings.TrimSpace(number)
		if !ok || !decimal.MatchString(number) {
			continue
		}
		r, _ := new(big.Rat).SetString(number)
		r.Mul(r, new(big.Rat).SetInt64(u.size))
		if !r.IsInt() || !r.Num().IsInt64() {
			break
		}
		return Bytes(r.Num().Int64()), "", nil
	}
	return 0, "write it as 512, 64KiB, 32MiB or 1GB", fmt.Errorf("want a size, got %q", text)
}

var dollars = regexp.MustCompile(`^[+-]?[0-9]{1,10}(\.[0-9]*)?$`)

// parseUSD reads dollars from the text of a number: 0.34 is exactly 340,000,000 nano-dollars.
func parseUSD(text string) (_ USD, hint string, _ error) {
	t := strings.TrimSpace(text)
	bare := strings.Trim(strings.ToUpper(t), "$ USD")
	switch {
	case !dollars.MatchString(t) && dollars.MatchString(bare):
		return 0, "write the number alone: " + bare, fmt.Errorf("want an amount in USD, got %q", text)
	case !dollars.MatchString(t) && dollars.MatchString(strings.ReplaceAll(t, ",", ".")):
		return 0, "write " + strings.ReplaceAll(t, ",", "."), fmt.Errorf("want an amount in USD, got %q", text)
	case !dollars.MatchString(t):
		return 0, "write it as 0.34", fmt.Errorf("want an amount in USD, got %q", text)
	}
	if _, frac, _ := strings.Cut(t, "."); len(strings.TrimRight(frac, "0")) > 9 {
		return 0, "nano-dollars are the smallest unit", fmt.Errorf("%s has more than nine decimals", t)
	}
	usd, err := api.ParseUSD(t)
	if err != nil {
		return 0, "", fmt.Errorf("%s is more than can be counted", t)
	}
	return usd, "", nil
}

// parseDuration reads a time as Go writes it: 30s, 5m, 1h30m. A bare number is refused: it
// would be read as seconds by one and as milliseconds by the next.
func parseDuration(text string) (_ time.Duration, hint string, _ error) {
	t := strings.TrimSpace(text)
	d, err := time.ParseDuration(t)
	switch {
	case err == nil && d < 0:
		return 0, "", fmt.Errorf("a time cannot be negative, got %s", t)
	case err == nil:
		return d, "", nil
	}
	if n, err := strconv.ParseFloat(t, 64); err == nil && !math.IsNaN(n) && !math.IsInf(n, 0) {
		return 0, fmt.Sprintf("write %ss for seconds, %sms for milliseconds", t, t), fmt.Errorf("%s has no unit", t)
	}
	if days, ok := strings.CutSuffix(t, "d"); ok {
		if n, err := strconv.Atoi(days); err == nil && n > 0 && n < 10_000 {
			return 0, fmt.Sprintf("write %dh", n*24), fmt.Errorf("hours are the largest unit, got %q", text)
		}
	}
	return 0, "write it as 500ms, 30s, 5m or 1h30m", fmt.Errorf("want a time, got %q", text)
}
