package tui

import (
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

const (
	unknown Text = "-" // no such datum
	loading Text = "…" // not there yet
)

// known says that a number can be shown.
func known(v float64) bool { return !math.IsNaN(v) && !math.IsInf(v, 0) }

// val reads an optional number, NaN where there is none.
func val(p *float64) float64 {
	if p == nil {
		return math.NaN()
	}
	return *p
}

// count writes a whole number: 0, 9999, 12.3k, 4.56M.
func count(n int64) Text {
	if n > -10000 && n < 10000 {
		return Text(strconv.FormatInt(n, 10))
	}
	return rate(float64(n))
}

// rate writes a number in at most five characters: 0, 0.04, 2.4, 310, 9999, 12.3k, 4.56M.
func rate(v float64) Text {
	if !known(v) {
		return unknown
	}
	sign := ""
	if v < 0 {
		sign, v = "-", -v
	}
	switch {
	case v == 0:
		return "0"
	case v < 0.005:
		return Text(sign + "<.01")
	case v < 0.0995:
		return Text(sign + strconv.FormatFloat(v, 'f', 2, 64))
	case v < 9.95:
		return Text(sign + strconv.FormatFloat(v, 'f', 1, 64))
	case v < 9999.5:
		return Text(sign + strconv.FormatFloat(v, 'f', 0, 64))
	}
	for _, unit := range [...]string{"k", "M", "G", "T"} {
		v /= 1000
		switch {
		case v < 9.995:
			return Text(sign + strconv.FormatFloat(v, 'f', 2, 64) + unit)
		case v < 99.95:
			return Text(sign + strconv.FormatFloat(v, 'f', 1, 64) + unit)
		case v < 999.5:
			return Text(sign + strconv.FormatFloat(v, 'f', 0, 64) + unit)
		}
	}
	return "huge"
}

// axisRate is rate without a needless decimal: the labels of an axis are round.
func axisRate(v float64) Text {
	if t, ok := strings.CutSuffix(string(rate(v)), ".0"); ok {
		return clean(t)
	}
	return rate(v)
}

// cores writes how many cores are busy: 0, 0.02, 1.4, 24.
func cores(v float64) Text {
	switch {
	case !known(v) || v >= 0.0995:
		return decimals(v, 1)
	case v < 0.005:
		return "0"
	}
	return decimals(v, 2)
}

// seconds writes a latency in at most six characters: 0.4ms, 182ms, 2.14s, 81.0s, 12m03s.
func seconds(v float64) Text {
	switch {
	case !known(v) || v < 0:
		return unknown
	case v == 0:
		return "0ms"
	case v < 0.00995:
		return Text(strconv.FormatFloat(v*1e3, 'f', 1, 64) + "ms")
	case v < 0.9995:
		return Text(strconv.FormatFloat(v*1e3, 'f', 0, 64) + "ms")
	case v < 9.995:
		return Text(strconv.FormatFloat(v, 'f', 2, 64) + "s")
	case v < 99.95:
		return Text(strconv.FormatFloat(v, 'f', 1, 64) + "s")
	}
	return long(time.Duration(v * float64(time.Second)))
}

// span writes a Span, unknown where it is 0.
func span(s api.Span) Text {
	if s == 0 {
		return unknown
	}
	return seconds(time.Duration(s).Seconds())
}

// long writes a duration as two units: 45s, 12m03s, 3h04m, 2d07h.
func long(d time.Duration) Text {
	two := func(a int64, ua string, b int64, ub string) Text {
		pad := ""
		if b < 10 {
			pad = "0"
		}
		return Text(strconv.FormatInt(a, 10) + ua + pad + strconv.FormatInt(b, 10) + ub)
	}
	s := int64(d / time.Second)
	switch {
	case s < 0:
		return unknown
	case s < 60:
		return Text(strconv.FormatInt(s, 10) + "s")
	case s < 3600:
		return two(s/60, "m", s%60, "s")
	case s < 86400:
		return two(s/3600, "h", s/60%60, "m")
	case s < 100*86400:
		return two(s/86400, "d", s/3600%24, "h")
	case s < 1000*86400:
		return Text(strconv.FormatInt(s/86400, 10) + "d")
	}
	return Text(strconv.FormatInt(s/86400/365, 10) + "y")
}

// age writes how long something has lasted in one unit, so that it seldom changes: <1m, 12m, 3h, 5d.
func age(d time.Duration) Text {
	switch {
	case d < 0:
		return unknown
	case d < time.Minute:
		return "<1m"
	case d < time.Hour:
		return Text(strconv.Itoa(int(d/time.Minute)) + "m")
	case d < 48*time.Hour:
		return Text(strconv.Itoa(int(d/time.Hour)) + "h")
	case d < 10000*24*time.Hour:
		return Text(strconv.Itoa(int(d/(24*time.Hour))) + "d")
	}
	return unknown
}

// percent writes a share of 0..1: 0%, 0.2%, 61%, 100%. What is below a tenth of a per cent but not
// nothing is <0.1%.
func percent(v float64) Text {
	switch p := v * 100; {
	case !known(v):
		return unknown
	case p == 0:
		return "0%"
	case p > 0 && p < 0.1:
		return "<0.1%"
	case p > -9.95 && p < 9.95:
		return Text(strconv.FormatFloat(p, 'f', 1, 64) + "%")
	case p > -1e6 && p < 1e6:
		return Text(strconv.FormatFloat(p, 'f', 0, 64) + "%")
	}
	return "huge"
}

// percentInt is percent without decimals, for tables.
func percentInt(v float64) Text {
	if !known(v) {
		return unknown
	}
	return Text(strconv.FormatFloat(math.Round(math.Min(math.Max(v, -9.99), 9.99)*100), 'f', 0, 64) + "%")
}

// money writes dollars with as many decimals as the amount needs: $1,234, $37.50, $0.482, $0.000123.
func money(n *api.Nanos) Text {
	if n == nil {
		return unknown
	}
	sign, v := "", n.USD()
	if v < 0 {
		sign, v = "-", -v
	}
	return Text(sign + "$" + dollars(v))
}

// moneyWidth is what a column of money has.
const moneyWidth = 10

// cellMoney is money for a column: with fewer digits where three do not fit.
func cellMoney(n *api.Nanos) Text {
	const places = moneyWidth - len("-$0.")
	t := money(n)
	if n == nil || t.width() <= moneyWidth {
		return t
	}
	if v := math.Abs(n.USD()); v >= 1 {
		return t
	} else if least := math.Pow10(-places); v < least/2 {
		return Text("<$" + strconv.FormatFloat(least, 'f', places, 64))
	}
	return purse{places}.money(n)
}

// purse writes amounts that stand under each other with the same decimals, so that the eye can
// compare them: as many as the greatest needs for three digits, at least two.
type purse struct{ decimals int }

func purseOf(amounts ...*api.Nanos) purse {
	greatest := 0.0
	for _, n := range amounts {
		if n != nil {
			greatest = max(greatest, math.Abs(n.USD()))
		}
	}
	switch {
	case greatest >= 1000:
		return purse{0}
	case greatest >= 1 || greatest == 0:
		return purse{2}
	}
	return purse{min(2-int(math.Floor(math.Log10(greatest))), 9)}
}

func (p purse) money(n *api.Nanos) Text {
	if n == nil {
		return unknown
	}
	v := n.USD()
	if p.decimals == 0 || v == 0 && p.decimals <= 2 || math.Abs(v) >= 1e6 {
		return money(n)
	}
	sign := ""
	if v < 0 {
		sign, v = "-", -v
	}
	if least := math.Pow10(-p.decimals); v > 0 && v < least/2 { // not nothing
		return Text(sign + "<$" + strconv.FormatFloat(least, 'f', p.decimals, 64))
	}
	return Text(sign + "$" + strconv.FormatFloat(v, 'f', p.decimals, 64))
}

func (p purse) signed(n *api.Nanos) Text {
	if n != nil && *n > 0 {
		return "+" + p.money(n)
	}
	return p.money(n)
}

// signed is money with a plus on a gain.
func signed(n *api.Nanos) Text {
	if n != nil && *n > 0 {
		return "+" + money(n)
	}
	return money(n)
}

func dollars(v float64) string {
	switch {
	case v == 0:
		return "0.00"
	case v >= 1e9:
		return string(rate(v))
	case v >= 1000:
		s := strconv.FormatFloat(v, 'f', 0, 64)
		for i := len(s) - 3; i > 0; i -= 3 {
			s = s[:i] + "," + s[i:]
		}
		return s
	case v >= 1:
		return strconv.FormatFloat(v, 'f', 2, 64)
	case v >= 0.1:
		return strconv.FormatFloat(v, 'f', 3, 64)
	}
	// Three significant digits, at most the nine decimals that there are.
	decimals := min(2-int(math.Floor(math.Log10(v))), 9)
	return strconv.FormatFloat(v, 'f', decimals, 64)
}

// perMillion writes a unit price: $0.15/M.
func perMillion(n *api.Nanos) Text {
	if n == nil {
		return unknown
	}
	return money(n) + "/M"
}

// size writes bytes: 71.2G, 512M.
func size(b int64) Text {
	v, unit := float64(b), "B"
	for _, u := range [...]string{"K", "M", "G", "T", "P"} {
		if v < 1000 {
			break
		}
		v, unit = v/1024, u
	}
	if v < 9.95 && unit != "B" {
		return Text(strconv.FormatFloat(v, 'f', 1, 64) + unit)
	}
	return Text(strconv.FormatFloat(v, 'f', 0, 64) + unit)
}

// decimals writes a number with fixed decimals.
func decimals(v float64, n int) Text {
	if !known(v) {
		return unknown
	}
	return Text(strconv.FormatFloat(v, 'f', n, 64))
}

// whole writes an int.
func whole(n int) Text { return Text(strconv.Itoa(n)) }

// clock writes hours and minutes, hms also seconds.
func clock(t time.Time) Text { return Text(t.Format("15:04")) }

func hms(t time.Time) Text {
	if t.IsZero() {
		return unknown
	}
	return Text(t.Format("15:04:05"))
}

// day writes a date.
func day(t time.Time) Text {
	if t.IsZero() {
		return unknown
	}
	return Text(t.Format("2006-01-02"))
}

func monthDay(t time.Time) Text { return Text(t.Format("Jan 02")) }

// windowName writes the span of a window: 1m, 15m, 6h, 7d.
func windowName(s api.Span) Text {
	switch d := time.Duration(s); {
	case d <= 0:
		return unknown
	case d < time.Minute:
		return Text(strconv.Itoa(int(d/time.Second)) + "s")
	case d < time.Hour:
		return Text(strconv.Itoa(int(d/time.Minute)) + "m")
	case d <= 24*time.Hour:
		return Text(strconv.Itoa(int(d/time.Hour)) + "h")
	default:
		return Text(strconv.Itoa(int(d/(24*time.Hour))) + "d")
	}
}

// plural writes a number and its noun.
func plural(n int64, one, many Text) Text {
	if n == 1 {
		return "1 " + one
	}
	return count(n) + " " + many
}

// capital writes the first letter of a word of ours large.
func capital(t Text) Text { return Text(strings.ToUpper(string(t[:1]))) + t[1:] }
