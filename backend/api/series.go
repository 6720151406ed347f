package api

import (
	"bytes"
	"fmt"
	"math"
	"strconv"
)

// Series is a history of one number, oldest first. A point that is not known is NaN; in JSON
// it is null. JSON keeps four significant digits.
type Series []float64

// MarshalJSON writes the points.
func (s Series) MarshalJSON() ([]byte, error) {
	b := make([]byte, 0, 2+6*len(s))
	b = append(b, '[')
	for i, v := range s {
		if i > 0 {
			b = append(b, ',')
		}
		if math.IsNaN(v) || math.IsInf(v, 0) {
			b = append(b, "null"...)
			continue
		}
		if a := math.Abs(v); a >= 1e4 && a < 1e8 { // shorter than with an exponent
			unit := math.Pow10(int(math.Log10(a)) - 3)
			b = strconv.AppendInt(b, int64(math.Round(v/unit)*unit), 10)
			continue
		}
		b = strconv.AppendFloat(b, v, 'g', 4, 64)
	}
	return append(b, ']'), nil
}

// UnmarshalJSON reads the points.
func (s *Series) UnmarshalJSON(b []byte) error {
	if bytes.Equal(b, []byte("null")) {
		*s = nil
		return nil
	}
	// b is JSON: encoding/json has seen to that. There are thousands of points in a snapshot.
	text, ok := bytes.CutPrefix(bytes.TrimSpace(b), []byte("["))
	if !ok {
		return fmt.Errorf("read %.20s as a series: want a list of numbers", b)
	}
	out := make(Series, 0, bytes.Count(text, []byte(","))+1)
	for text = bytes.TrimSpace(text[:len(text)-1]); len(text) > 0; {
		point, rest, _ := bytes.Cut(text, []byte(","))
		text = rest
		v := math.NaN()
		if point = bytes.TrimSpace(point); string(point) != "null" {
			var err error
			if v, err = strconv.ParseFloat(string(point), 64); err != nil {
				return fmt.Errorf("read a series: %w", err)
			}
		}
		out = append(out, v)
	}
	*s = out
	return nil
}

// Last gives the newest point, NaN where there is none.
func (s Series) Last() float64 {
	if len(s) == 0 {
		return math.NaN()
	}
	return s[len(s)-1]
}
