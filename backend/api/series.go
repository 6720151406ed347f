package api

import (
	"bytes"
	"encoding/json"
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
	var points []*float64
	if err := json.Unmarshal(b, &points); err != nil {
		return err
	}
	out := make(Series, len(points))
	for i, p := range points {
		out[i] = math.NaN()
		if p != nil {
			out[i] = *p
		}
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
