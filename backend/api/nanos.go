package api

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"math/big"
	"strconv"
	"strings"
)

// Nanos is money in nano-dollars (1e-9 USD). It covers ±9.2 billion dollars. An amount that is
// not known is a nil *Nanos, never 0.
type Nanos int64

// Dollar is one US dollar.
const Dollar Nanos = 1_000_000_000

// USD gives the amount as a float, for drawing only: sums stay in Nanos.
func (n Nanos) USD() float64 { return float64(n) / float64(Dollar) }

// String writes the amount as an exact decimal number of dollars, without a currency sign:
// 0.000123, -1.5, 0.
func (n Nanos) String() string { return string(n.Append(nil)) }

// MarshalJSON writes the exact decimal number of dollars.
func (n Nanos) MarshalJSON() ([]byte, error) { return n.Append(nil), nil }

// UnmarshalJSON reads a decimal number of dollars with at most nine decimals.
func (n *Nanos) UnmarshalJSON(b []byte) error {
	if string(b) == "null" {
		return nil
	}
	v, err := ParseUSD(string(b))
	if err != nil {
		return err
	}
	*n = v
	return nil
}

// Append appends what String gives to b.
func (n Nanos) Append(b []byte) []byte {
	u := uint64(n)
	if n < 0 {
		b = append(b, '-')
		u = -u
	}
	b = strconv.AppendUint(b, u/uint64(Dollar), 10)
	if frac := u % uint64(Dollar); frac != 0 {
		at := len(b)
		b = strconv.AppendUint(b, uint64(Dollar)+frac, 10)
		b[at] = '.' // in place of the leading 1, which kept the zeros behind it
		b = bytes.TrimRight(b, "0")
	}
	return b
}

// ParseUSD reads a decimal number of dollars exactly. More than nine decimals are rounded half
// away from zero; a value that Nanos cannot hold is an error.
func ParseUSD(s string) (Nanos, error) {
	s = strings.TrimSpace(s)
	if n, ok := parsePlain(s); ok {
		return n, nil
	}
	// A long exponent would be expanded exactly, and that without end.
	if i := strings.IndexAny(s, "eEpP"); len(s) > 64 || i >= 0 && len(s)-i > 4 {
		return 0, fmt.Errorf("read %q as dollars: want a decimal number such as 0.34", s[:min(len(s), 64)])
	}
	r, ok := new(big.Rat).SetString(s)
	if !ok {
		return 0, fmt.Errorf("read %q as dollars: want a decimal number such as 0.34", s)
	}
	r.Mul(r, new(big.Rat).SetInt64(int64(Dollar)))
	half := big.NewRat(1, 2)
	if r.Sign() < 0 {
		half.Neg(half)
	}
	r.Add(r, half)
	q := new(big.Int).Quo(r.Num(), r.Denom())
	if !q.IsInt64() {
		return 0, fmt.Errorf("read %q as dollars: %w", s, errRange)
	}
	return Nanos(q.Int64()), nil
}

// parsePlain reads what Append writes, of less than a billion dollars.
func parsePlain(s string) (Nanos, bool) {
	digits := strings.TrimPrefix(s, "-")
	whole, frac, point := strings.Cut(digits, ".")
	if len(whole) == 0 || len(whole) > 9 || len(frac) > 9 || point && frac == "" {
		return 0, false
	}
	var n Nanos
	for i := range len(whole) + 9 {
		c := byte('0') // the decimals that s leaves out
		if i < len(whole) {
			c = whole[i]
		} else if i -= len(whole); i < len(frac) {
			c = frac[i]
		}
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + Nanos(c-'0')
	}
	if len(digits) < len(s) {
		n = -n
	}
	return n, true
}

var errRange = errors.New("out of range")

// FromUSD rounds a float amount of dollars to Nanos. NaN and what is out of range give 0 and false.
func FromUSD(usd float64) (Nanos, bool) {
	v := math.Round(usd * float64(Dollar))
	if math.IsNaN(v) || v >= math.MaxInt64 || v <= math.MinInt64 {
		return 0, false
	}
	return Nanos(v), true
}

// Sum adds amounts of which some may be unknown: one unknown makes the sum unknown.
func Sum(amounts ...*Nanos) *Nanos {
	var total Nanos
	for _, a := range amounts {
		if a == nil {
			return nil
		}
		total += *a
	}
	return &total
}
