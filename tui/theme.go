package tui

import "strings"

// style names a way to draw text. What it looks like is the theme's business.
type style uint8

const (
	stText   style = iota // what is read
	stDim                 // labels, units
	stFaint               // frames, axes, what recedes
	stFocus               // the focused frame
	stTitle               // titles of panes
	stStrong              // the number that matters
	stOK                  // severity, and nothing else
	stWarn
	stBad
	stA // series: output tokens, p95
	stA2
	stA3
	stB // series: requests, p50
	stB2
	stC // series: third
	stC2
	stBadge  // SIMULATED, PAUSED
	stAlarm  // the engine is away
	stTab    // the current view
	stKey    // keys in hints
	stCursor // chart cursor
	styles
)

// theme is a set of SGR parameters, one per style, and that of the selected row.
type theme struct {
	name Text
	sgr  [styles]string
	sel  string
	dark bool
}

const reverse = "7"

func rgb(fg string) string {
	n := func(s string) string {
		v := 0
		for _, c := range s {
			d := int(c - '0')
			if c >= 'a' {
				d = int(c-'a') + 10
			}
			v = v*16 + d
		}
		return string(whole(v))
	}
	return n(fg[0:2]) + ";" + n(fg[2:4]) + ";" + n(fg[4:6])
}

func fg(hex string) string { return "38;2;" + rgb(hex) }
func bg(hex string) string { return "48;2;" + rgb(hex) }

// grey is one of the 24 greys of the 256-colour palette: half the bytes of the same colour in RGB, and
// what is dim is most of a screen. 0 is 080808, 23 is eeeeee.
func grey(n int) string { return "38;5;" + string(whole(232+n)) }

// themes are all there are; "auto" is dark or light by the terminal's background.
var themes = []theme{
	// Greys are those of the 256-colour palette, so that fewer colours do not tint them.
	{name: "dark", dark: true, sel: bg("303030"), sgr: [styles]string{
		stText: fg("c9d1d9"), stDim: grey(14), stFaint: grey(7), stFocus: fg("79a8ff"), stTitle: "1;" + fg("c9d1d9"),
		stStrong: "1;" + fg("f0f4f8"), stOK: fg("5fba7d"), stWarn: fg("e0af4f"), stBad: fg("f2777a"),
		stA: fg("6cb6ff"), stA2: fg("4183c4"), stA3: fg("2c5a8c"), stB: fg("56c8d8"), stB2: fg("2f7f8b"), stC: fg("b794f4"), stC2: fg("7457a8"),
		stBadge: fg("16191f") + ";" + bg("e0af4f"), stAlarm: "1;" + fg("ffffff") + ";" + bg("b3383c"),
		stTab: "1;" + fg("16191f") + ";" + bg("79a8ff"), stKey: fg("9ecbff"), stCursor: fg("f0f4f8"),
	}},
	{name: "light", sel: bg("d6e4f7"), sgr: [styles]string{
		stText: fg("24292f"), stDim: fg("57606a"), stFaint: fg("afb8c1"), stFocus: fg("0a52b8"), stTitle: "1;" + fg("24292f"),
		stStrong: "1;" + fg("0b0d10"), stOK: fg("116329"), stWarn: fg("8a5a00"), stBad: fg("b3121d"),
		stA: fg("0a5fc2"), stA2: fg("3f86d8"), stA3: fg("7fb0e8"), stB: fg("0b7285"), stB2: fg("4fa3b1"), stC: fg("6f42c1"), stC2: fg("a888e0"),
		stBadge: fg("ffffff") + ";" + bg("8a5a00"), stAlarm: "1;" + fg("ffffff") + ";" + bg("b3121d"),
		stTab: "1;" + fg("ffffff") + ";" + bg("0a52b8"), stKey: fg("0a52b8"), stCursor: fg("0b0d10"),
	}},
	{name: "mono", dark: true, sel: reverse, sgr: [styles]string{
		stDim: "", stFaint: "2", stFocus: "1", stTitle: "1", stStrong: "1", stWarn: "1", stBad: "1", stA3: "2",
		stB2: "2", stC2: "2", stBadge: "7", stAlarm: "1;7", stTab: "7", stKey: "1", stCursor: "1",
	}},
	{name: "tty16", dark: true, sel: reverse, sgr: [styles]string{
		stText: "37", stDim: "37", stFaint: "90", stFocus: "94", stTitle: "1;37", stStrong: "97", stOK: "32", stWarn: "33", stBad: "91",
		stA: "94", stA2: "94", stA3: "34", stB: "96", stB2: "36", stC: "95", stC2: "35",
		stBadge: "30;43", stAlarm: "97;41", stTab: "30;46", stKey: "96", stCursor: "97",
	}},
	// Blue, orange and vermilion of Okabe and Ito, which red-green blindness leaves apart.
	{name: "cvd", dark: true, sel: bg("303030"), sgr: [styles]string{
		stText: fg("d0d4da"), stDim: grey(15), stFaint: grey(7), stFocus: fg("56b4e9"), stTitle: "1;" + fg("d0d4da"),
		stStrong: "1;" + fg("ffffff"), stOK: fg("56b4e9"), stWarn: fg("f0e442"), stBad: fg("ff8a3d"),
		stA: fg("8fb7ff"), stA2: fg("5f86cc"), stA3: fg("3d5a90"), stB: fg("a9d6d0"), stB2: fg("6a918c"), stC: fg("cc9ac0"), stC2: fg("8c6384"),
		stBadge: fg("16191f") + ";" + bg("f0e442"), stAlarm: "1;" + fg("16191f") + ";" + bg("ff8a3d"),
		stTab: "1;" + fg("16191f") + ";" + bg("56b4e9"), stKey: fg("8fb7ff"), stCursor: fg("ffffff"),
	}},
}

// themeNamed gives a theme; "auto" and what is not known are dark or light by the background.
func themeNamed(name string, dark bool) *theme {
	for i := range themes {
		if strings.EqualFold(string(themes[i].name), name) {
			return &themes[i]
		}
	}
	if dark {
		return &themes[0]
	}
	return &themes[1]
}

// ThemeNames are the values of Options.Theme.
func ThemeNames() []string {
	names := []string{"auto"}
	for i := range themes {
		names = append(names, string(themes[i].name))
	}
	return names
}
