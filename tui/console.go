package tui

import (
	"context"
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

	snap    *api.Snapshot // what is shown
	live    *api.Snapshot // the newest; differs while paused
	gotAt   time.Time     // of live
	fetched uint64        // snapshots so far
	err     error         // why the last fetch brought nothing
	paused  bool
	movedAt time.Time // when something last happened, by the engine's clock
	resting bool      // nothing has for a while: see adopt

	workers, requests, notices, prompts list
	crashes, advices, strays            list
	keyRows, models, cached             list
	filters                             map[paneID]filter
	orders                              map[paneID]order
	logs                                logView
	tab                                 int    // of the worker's detail
	crash                               string // whose last lines are read; "" for none
	everyCrash                          bool   // the crash book of all workers, not only of the selected one
	costKeys                            bool   // the costs of client keys
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
	held   map[string]float64 // figures that are steadied
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
		view: viewOverview, window: -1, cursor: -1, mouse: opt.Mouse, focus: map[viewID]paneID{}, filters: map[paneID]filter{}, orders: map[paneID]order{},
		scroll: map[paneID]int{}, cache: map[paneID]cached{}, scales: map[string]*scale{}, held: map[string]float64{}, dirty: true,
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
	case savedMsg:
		c.touch()
		c.saved(msg)
	case doneMsg:
		c.touch()
		return c, c.done(msg)
	case tea.KeyPressMsg:
		c.touch()
		c.refresh()
		return c, c.key(msg)
	case tea.PasteMsg:
		c.touch()
		c.refresh()
		c.paste(string(Sanitize(msg.Content)))
		return c, nil
	case tea.MouseClickMsg:
		c.touch()
		c.refresh()
		c.click(msg.X, msg.Y)
		return c, c.follow()
	case tea.MouseWheelMsg:
		c.touch()
		c.refresh()
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
	if c.toast != "" && c.now().After(c.toastUntil) {
		c.toast = ""
		c.rev++
	}
	if msg.err != nil {
		c.err = msg.err
		if c.result.Stopped {
			return tea.Quit
		}
		return next
	}
	before := c.live
	c.err, c.live, c.gotAt = nil, msg.snap, c.now()
	c.fetched++
	if !c.paused {
		c.adopt(before)
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
	workers, requests := c.workerRows(), c.requestRows()
	c.workers.sync(len(workers), func(i int) string { return workers[i].Name })
	c.requests.sync(len(requests), func(i int) string { return requests[i].ID })
	c.notices.sync(len(c.noticeRows()), nil)
	prompts := c.snap.Prompts
	c.prompts.sync(len(prompts), func(i int) string { return prompts[i].ID })
	crashes, advices, strays, keys, cache := c.crashRows(), c.adviceRows(), c.snap.Strays, c.keysByUse(), c.cacheRows()
	c.crashes.sync(len(crashes), func(i int) string { return crashes[i].ID })
	c.advices.sync(len(advices), func(i int) string { return advices[i].Rule + advices[i].Worker })
	c.strays.sync(len(strays), func(i int) string { return string(whole(strays[i].PID)) })
	c.keyRows.sync(len(keys), func(i int) string { return keys[i].ID + " " + keys[i].Name })
	c.models.sync(len(c.snap.Models), func(i int) string { return c.snap.Models[i].Name })
	c.cached.sync(len(cache), func(i int) string { return cache[i].name() })
}

// firstWindow is 5 minutes, or 1 minute in a demo, which has no past.
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
	return len(c.snap.Windows) - 1
}

// win is the window that is shown, nil before there is one.
func (c *Console) win() *api.Window {
	if c.snap == nil || c.window < 0 || c.window >= len(c.snap.Windows) {
		return nil
	}
	return &c.snap.Windows[c.window]
}

func (c *Console) done(msg doneMsg) tea.Cmd {
	name := verbName(msg.action.Verb)
	if msg.action.Target != "" {
		name += " " + clean(msg.action.Target)
	}
	if msg.err != nil {
		if msg.action.Verb == api.PromptSend {
			c.prompt.err = clean(msg.err.Error())
		}
		c.refused(name, clean(msg.err.Error()))
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

// refused says why an order was not taken: in the last line if there is room for all of it.
func (c *Console) refused(name, why Text) {
	if t := c.g.bad + " " + name + ": " + why; t.width() < c.w-1 || c.dialog != nil {
		c.say(stBad, t)
		return
	}
	c.ask(&dialog{title: "Not done: " + name, lines: []part{{stBad, why}}})
}

// say shows a line in place of the hints for a few seconds.
func (c *Console) say(st style, t Text) {
	c.toast, c.toastStyle, c.toastUntil = oneLine(t), st, c.now().Add(toastFor)
}
