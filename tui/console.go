package tui

import (
	"context"
	"errors"
	"image/color"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	tea "charm.land/bubbletea/v2"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

// Options are what a Console is given. Source must be set; the rest may be left out.
type Options struct {
	Source   api.Source
	Demo     bool   // leaving ends everything: said where one leaves
	ReadOnly bool   // no key or command that changes anything
	Theme    string // one of ThemeNames; "" is auto
	Graph    string // braille, block or ascii; "" is braille
	ASCII    bool   // nothing but ASCII, for fonts and screen readers that want it
	Mouse    bool   // clicks and wheel; off, the terminal's own selection works
	View     int    // key of the first view; 0: the overview
	Now      func() time.Time
	Version  string // of this binary; a different engine is named in the header
	// OnQuitText says what leaving does, e.g. "serving goes on"; shown when ctrl+c is pressed once.
	OnQuitText string
}

// Result says how a console was left.
type Result struct {
	Stopped bool   // the engine was ordered to stop and took the order
	Kept    bool   // of Stopped: the workers go on
	URL     string // the gateway's, for the line that says serving goes on; "" if never seen
	Workers int    // ready ones when last seen
	Frame   string // the last screen, if the user asked to leave it (Q)
}

// Console is the only tea.Model.
type Console struct {
	opt    Options
	src    api.Source
	now    func() time.Time
	theme  string // as chosen; th is what it comes to
	dark   bool
	ground bool // dark is what the terminal said, not the default
	th     *theme
	g      *glyphs
	graph  string
	keys   []binding

	w, h   int
	view   viewID
	focus  map[viewID]paneID
	zoom   paneID
	window int // index into Snapshot.Windows
	cursor int // chart cursor: buckets back from the newest; -1 off
	mouse  bool

	snap   *api.Snapshot // what is shown
	live   *api.Snapshot // the newest; differs while paused
	gotAt  time.Time     // of live
	err    error         // why the last fetch brought nothing
	paused bool

	workers, requests, notices, prompts list
	filters                             map[paneID]filter
	logs                                logView
	tab                                 int // of the worker's detail
	prompt                              promptView
	dialog                              *dialog
	input                               *input
	help                                bool
	helpTop                             int
	scroll                              map[paneID]int
	toast                               Text
	toastStyle                          style
	toastUntil                          time.Time
	quitArmed                           time.Time
	result                              Result

	rev    uint64 // rises with every change that is not a snapshot
	dirty  bool
	rects  []Rect
	cache  map[paneID]cached
	scales map[string]*scale
	frame  string
}

type cached struct {
	key   cacheKey
	lines []string
}

// cacheKey is all that a pane's lines depend on: the same key, the same lines.
type cacheKey struct {
	snap  *api.Snapshot
	rect  Rect
	focus bool
	rev   uint64
	extra int64
}

const (
	fetchTimeout = 3 * time.Second
	actTimeout   = 10 * time.Second
	framesPerSec = 12
	toastFor     = 4 * time.Second
	quitWithin   = 2 * time.Second
)

// New builds a Console.
func New(opt Options) *Console {
	if opt.Now == nil {
		opt.Now = time.Now
	}
	c := &Console{
		opt: opt, src: opt.Source, now: opt.Now, theme: opt.Theme, dark: true, g: &unicodeGlyphs, graph: opt.Graph,
		view: viewOverview, window: -1, cursor: -1, mouse: opt.Mouse, focus: map[viewID]paneID{}, filters: map[paneID]filter{},
		scroll: map[paneID]int{}, cache: map[paneID]cached{}, scales: map[string]*scale{}, dirty: true,
	}
	if opt.ASCII {
		c.g, c.graph = &asciiGlyphs, graphASCII
	}
	switch c.graph {
	case graphBraille, graphBlock, graphASCII:
	default:
		c.graph = graphBraille
	}
	for _, v := range views {
		if int(v.id) == opt.View {
			c.view = v.id
		}
	}
	c.th = themeNamed(c.theme, c.dark)
	c.logs.follow = true
	c.prompt = newPromptView()
	c.keys = bindings()
	return c
}

// Run shows a console on the terminal until the user leaves it, and restores the terminal. On a
// terminal that cannot move its cursor (TERM=dumb) it prints one line per change instead.
func Run(ctx context.Context, opt Options, extra ...tea.ProgramOption) (Result, error) {
	if os.Getenv("NO_COLOR") != "" {
		opt.Theme = "mono"
	}
	if os.Getenv("TERM") == "dumb" {
		return runPlain(ctx, opt, os.Stdout)
	}
	// A killed terminal must end the program, and with its modes restored.
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGHUP, syscall.SIGTERM)
	defer stop()
	c := New(opt)
	opts := append([]tea.ProgramOption{tea.WithContext(ctx), tea.WithFPS(framesPerSec), tea.WithFilter(coalesceWheel())}, extra...)
	_, err := tea.NewProgram(c, opts...).Run()
	c.result.fill(c.live)
	if err != nil && (errors.Is(err, tea.ErrProgramKilled) || errors.Is(err, tea.ErrInterrupted)) && !errors.Is(err, tea.ErrProgramPanic) {
		err = nil
	}
	return c.result, err
}

func (r *Result) fill(s *api.Snapshot) {
	if s == nil {
		return
	}
	r.URL = s.Engine.URL
	for i := range s.Workers {
		if s.Workers[i].State == api.Ready {
			r.Workers++
		}
	}
}

// coalesceWheel drops wheel events that come faster than frames, so that keys never queue behind a
// flick of the wheel.
func coalesceWheel() func(tea.Model, tea.Msg) tea.Msg {
	var last time.Time
	return func(_ tea.Model, msg tea.Msg) tea.Msg {
		if _, ok := msg.(tea.MouseWheelMsg); ok {
			if t := time.Now(); t.Sub(last) < 16*time.Millisecond {
				return nil
			} else {
				last = t
			}
		}
		return msg
	}
}

// Messages.
type (
	tickMsg     struct{}
	snapshotMsg struct {
		snap *api.Snapshot
		err  error
	}
	doneMsg struct {
		action api.Action
		err    error
	}
)

// Init asks for the first snapshot and, without waiting for the answer, for the background colour
// and for synchronized output (which Bubble Tea does not ask for over SSH).
func (c *Console) Init() tea.Cmd {
	return tea.Batch(c.fetch(), tea.RequestBackgroundColor, tea.Raw("\x1b[?2026$p"))
}

func (c *Console) fetch() tea.Cmd {
	src := c.src
	return func() tea.Msg {
		ctx, cancel := context.WithTimeout(context.Background(), fetchTimeout)
		defer cancel()
		s, err := src.Snapshot(ctx)
		if err == nil && s == nil {
			err = api.ErrAway
		}
		return snapshotMsg{s, err}
	}
}

// act sends one order.
func (c *Console) act(a api.Action) tea.Cmd {
	src := c.src
	return func() tea.Msg {
		ctx, cancel := context.WithTimeout(context.Background(), actTimeout)
		defer cancel()
		return doneMsg{a, src.Do(ctx, a)}
	}
}

// Update takes a message. It never blocks: everything that waits is a command.
func (c *Console) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	switch msg := msg.(type) {
	case tea.WindowSizeMsg:
		c.w, c.h = msg.Width, msg.Height
		c.touch()
	case tea.BackgroundColorMsg:
		c.ground = true
		if c.dark != msg.IsDark() {
			c.dark = msg.IsDark()
			c.th = themeNamed(c.theme, c.dark)
			c.touch()
		}
	case tickMsg:
		return c, c.fetch()
	case snapshotMsg:
		return c, c.arrived(msg)
	case logMsg:
		return c, c.logArrived(msg)
	case promptTickMsg:
		return c, c.promptTick()
	case doneMsg:
		c.touch()
		return c, c.done(msg)
	case tea.KeyPressMsg:
		c.touch()
		return c, c.key(msg)
	case tea.PasteMsg:
		c.touch()
		return c, c.paste(string(Sanitize(msg.Content)))
	case tea.MouseClickMsg:
		c.touch()
		c.click(msg.X, msg.Y)
		return c, c.follow()
	case tea.MouseWheelMsg:
		c.touch()
		c.wheel(msg)
		return c, c.follow()
	case tea.ResumeMsg:
		c.touch()
		return c, tea.ClearScreen
	}
	return c, nil
}

// touch says that something besides the snapshot changed.
func (c *Console) touch() { c.rev++; c.dirty = true }

func (c *Console) arrived(msg snapshotMsg) tea.Cmd {
	c.dirty = true
	next := tea.Tick(api.Tick, func(time.Time) tea.Msg { return tickMsg{} })
	if msg.err != nil {
		c.err = msg.err
		if c.result.Stopped {
			return tea.Quit
		}
		return next
	}
	c.err, c.live, c.gotAt = nil, msg.snap, c.now()
	if c.toast != "" && c.now().After(c.toastUntil) {
		c.toast = ""
		c.rev++
	}
	if !c.paused {
		c.snap = c.live
		c.sync()
	}
	return tea.Batch(next, c.follow())
}

// sync carries selections over to a new snapshot.
func (c *Console) sync() {
	if c.snap == nil {
		return
	}
	if c.window < 0 || c.window >= len(c.snap.Windows) {
		c.window = c.firstWindow()
	}
	c.workers.sync(len(c.workerRows()), func(i int) string { return c.workerRows()[i].Name })
	c.requests.sync(len(c.requestRows()), func(i int) string { return c.requestRows()[i].ID })
	c.notices.sync(len(c.noticeRows()), nil)
	c.prompts.sync(len(c.snap.Prompts), func(i int) string { return c.snap.Prompts[i].ID })
}

// firstWindow is 5 minutes, or 1 minute in a demo and for an engine younger than that.
func (c *Console) firstWindow() int {
	want := 5 * time.Minute
	if c.opt.Demo || c.snap.Engine.Demo {
		want = time.Minute
	}
	for i := range c.snap.Windows {
		if time.Duration(c.snap.Windows[i].Span) >= want {
			return i
		}
	}
	return max(len(c.snap.Windows)-1, 0)
}

// win is the window that is shown, nil before there is one.
func (c *Console) win() *api.Window {
	if c.snap == nil || c.window < 0 || c.window >= len(c.snap.Windows) {
		return nil
	}
	return &c.snap.Windows[c.window]
}

func (c *Console) done(msg doneMsg) tea.Cmd {
	name := verbName(msg.action.Verb) + " " + clean(msg.action.Target)
	if msg.err != nil {
		if msg.action.Verb == api.PromptSend {
			c.prompt.err = clean(msg.err.Error())
		}
		c.say(stBad, c.g.bad+" "+name+": "+clean(msg.err.Error()))
		return nil
	}
	switch msg.action.Verb {
	case api.EngineStop:
		c.result.Stopped = true
		c.result.Kept = msg.action.Args["workers"] == "keep"
		c.say(stWarn, "the engine is stopping; this console ends with it")
	case api.PromptSend:
		return c.follow()
	default:
		c.say(stOK, c.g.ok+" "+name+": accepted")
	}
	return nil
}

// say shows a line in place of the hints for a few seconds.
func (c *Console) say(st style, t Text) {
	c.toast, c.toastStyle, c.toastUntil = oneLine(t), st, c.now().Add(toastFor)
}

// View draws. It joins lines that panes have cached; if nothing changed it gives the frame as it was.
func (c *Console) View() tea.View {
	if c.dirty {
		c.frame = c.draw()
		c.dirty = false
	}
	v := tea.NewView(c.frame)
	v.AltScreen = true
	v.WindowTitle = "vllmdeck"
	if c.mouse {
		v.MouseMode = tea.MouseModeCellMotion
	}
	if c.ground && c.th.dark != c.dark { // a theme chosen against the terminal's own background brings its own
		v.BackgroundColor = color.White
		if c.th.dark {
			v.BackgroundColor = color.Black
		}
	}
	v.Cursor = c.textCursor()
	return v
}

func (c *Console) draw() string {
	if c.w <= 0 || c.h <= 0 {
		return ""
	}
	zoom, one := c.zoom, c.focused()
	if c.help {
		zoom, one = paneHelp, paneHelp
	}
	c.rects = layout(c.view, c.w, c.h, c.need(), one, zoom)
	rows := make([][]string, len(c.rects))
	size := 0
	for i, r := range c.rects {
		rows[i] = c.pane(r)
	}
	rowsOut := make([]string, 0, c.h)
	var b strings.Builder
	for y := range c.h {
		b.Reset()
		for i, r := range c.rects { // rectangles of one row lie in order of X
			if y >= r.Y && y < r.Y+r.H {
				b.WriteString(rows[i][y-r.Y])
			}
		}
		rowsOut = append(rowsOut, b.String())
		size += b.Len() + 1
	}
	c.overlay(rowsOut)
	b.Reset()
	b.Grow(size)
	for y, row := range rowsOut {
		if y > 0 {
			b.WriteByte('\n')
		}
		if c.opt.ASCII {
			row = onlyASCII.Replace(row)
		}
		b.WriteString(row)
	}
	return b.String()
}

// pane gives the lines of one rectangle, from the cache if nothing they depend on changed.
func (c *Console) pane(r Rect) []string {
	key := cacheKey{snap: c.snap, rect: r, focus: r.Pane == c.focused(), rev: c.rev, extra: c.extra(r.Pane)}
	if old, ok := c.cache[r.Pane]; ok && old.key == key {
		return old.lines
	}
	lines := c.drawPane(r, key.focus)
	c.cache[r.Pane] = cached{key, lines}
	return lines
}

// extra is what a pane depends on besides snapshot and rev.
func (c *Console) extra(id paneID) int64 {
	switch id {
	case paneHeader, paneList:
		if away := c.away(); away > 0 {
			return int64(away/time.Second) + 1
		}
	case paneLogs, paneWorker:
		return c.logs.rev
	case paneAnswer:
		return c.prompt.rev
	}
	return 0
}

// away is how old the snapshot is, 0 while the engine answers.
func (c *Console) away() time.Duration {
	if c.err == nil {
		return 0
	}
	if c.gotAt.IsZero() {
		return time.Nanosecond
	}
	return max(c.now().Sub(c.gotAt), time.Nanosecond)
}

func (c *Console) need() need {
	if c.snap == nil {
		return need{workers: 2, requests: 10}
	}
	return need{workers: len(c.snap.Workers), requests: len(c.snap.Requests), noHealth: c.snap.Answers.Rated == 0, noCharts: c.noPoints()}
}

// noPoints says that there is nothing to draw a chart of.
func (c *Console) noPoints() bool {
	w := c.win()
	if w == nil {
		return true
	}
	for _, v := range w.Output {
		if known(v) {
			return false
		}
	}
	return w.Count == 0
}

func (c *Console) drawPane(r Rect, focus bool) []string {
	switch r.Pane {
	case paneHeader:
		return []string{c.header(r.W)}
	case paneTabs:
		return []string{c.tabs(r.W)}
	case paneFooter:
		return []string{c.footer(r.W)}
	case paneList:
		return c.plainList(r.W, r.H)
	}
	p := newPanel(c.th, c.g, r, focus)
	s := spec(r.Pane)
	p.name = s.name
	if n := c.paneNumber(r.Pane); n > 0 && n < len(c.g.super) && p.boxed && r.W >= 30 {
		p.name = c.g.super[n] + s.name
	}
	switch {
	case r.Pane == paneHelp:
		p.name = "Help"
		c.drawHelp(p)
	case c.snap == nil && r.Pane != paneLogs:
		c.connecting(p)
	default:
		s.draw(c, p)
	}
	if f, ok := c.filters[filterPane(r.Pane)]; ok && f.text != "" && s.filters {
		p.value = append([]part{{stWarn, "/" + clean(f.text)}}, p.value...)
	}
	return p.lines()
}

func (c *Console) connecting(p *panel) {
	if c.err == nil {
		p.row().put(stDim, "connecting"+loading)
		return
	}
	p.say(stWarn, clean(c.err.Error()))
	p.row().put(stDim, "retrying"+loading)
}
