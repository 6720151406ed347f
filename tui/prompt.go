package tui

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"slices"
	"strings"
	"time"

	"charm.land/bubbles/v2/textarea"
	tea "charm.land/bubbletea/v2"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

// promptView is the prompt tester: an editor, the answer as it streams, what was asked before.
type promptView struct {
	editor  textarea.Model
	model   string
	id      string // of the test whose answer is shown
	asked   string
	after   uint64
	busy    bool
	ticking bool
	done    bool // the whole answer has been read
	err     Text
	raw     strings.Builder // the answer as it came
	wrapped []Text          // its whole paragraphs, wrapped to width
	rest    string          // the paragraph that is still coming
	width   int
	top     int
	held    bool // scrolled away from the end
	height  int
	past    []string // what was sent, oldest first
	pastAt  int
	rev     int64
}

// streamEvery is how often text that is on screen is read: at most ten times a second.
const streamEvery = 100 * time.Millisecond

type promptTickMsg struct{}

func newPromptView() promptView {
	e := textarea.New()
	e.Prompt = ""
	e.ShowLineNumbers = false
	e.CharLimit = 64 << 10
	e.MaxHeight = 0
	e.Placeholder = ""
	e.SetVirtualCursor(false)
	e.SetStyles(textarea.Styles{})
	e.Focus()
	return promptView{editor: e}
}

// typing says that printable keys go to the editor.
func (c *Console) typing() bool {
	return c.view == viewPrompt && c.focused() == panePrompt && !c.opt.ReadOnly && c.dialog == nil && c.input == nil && !c.help
}

func (v *promptView) insert(s string) { v.editor.InsertString(s); v.rev++ }

// editorKey gives a key to the editor; false: it is not the editor's.
func (c *Console) editorKey(k string, msg tea.KeyPressMsg) (tea.Cmd, bool) {
	v := &c.prompt
	switch k {
	case "enter", "ctrl+enter":
		return c.send(), true
	case "alt+enter", "ctrl+j", "shift+enter":
		v.insert("\n")
		return nil, true
	case "esc":
		c.focus[viewPrompt] = paneAnswer
		return nil, true
	case "ctrl+n":
		v.nextModel(c.snap)
		return nil, true
	case "up":
		if v.editor.Line() == 0 && len(v.past) > 0 {
			v.recall(-1)
			return nil, true
		}
	case "down":
		if v.editor.Line() >= v.editor.LineCount()-1 && len(v.past) > 0 {
			v.recall(1)
			return nil, true
		}
	case "tab", "shift+tab", "ctrl+x", "ctrl+l", "ctrl+z", "ctrl+p", "pgup", "pgdown":
		return nil, false
	}
	if msg.Text != "" {
		if safe := Sanitize(msg.Text); string(safe) != msg.Text {
			v.insert(string(safe))
			return nil, true
		}
	}
	v.editor, _ = v.editor.Update(msg)
	v.rev++
	return nil, true
}

// recall walks through what was sent.
func (v *promptView) recall(by int) {
	v.pastAt = max(min(v.pastAt+by, len(v.past)), 0)
	text := ""
	if v.pastAt < len(v.past) {
		text = v.past[v.pastAt]
	}
	v.editor.SetValue(text)
	v.rev++
}

func (c *Console) editPrompt() tea.Cmd {
	c.focus[viewPrompt] = panePrompt
	return nil
}

// modelName is the chosen model, by default the first that can answer.
func (v *promptView) modelName(s *api.Snapshot) string {
	if s == nil {
		return ""
	}
	for i := range s.Models {
		if s.Models[i].Name == v.model {
			return v.model
		}
	}
	for i := range s.Models {
		if s.Models[i].Servable() {
			return s.Models[i].Name
		}
	}
	if len(s.Models) > 0 {
		return s.Models[0].Name
	}
	return ""
}

func (v *promptView) nextModel(s *api.Snapshot) {
	if s == nil || len(s.Models) == 0 {
		return
	}
	now := v.modelName(s)
	for i := range s.Models {
		if s.Models[i].Name == now {
			v.model = s.Models[(i+1)%len(s.Models)].Name
			break
		}
	}
	v.rev++
}

// test is the prompt test that is shown, as the snapshot knows it.
func (v *promptView) test(s *api.Snapshot) *api.Prompt {
	if s == nil || v.id == "" {
		return nil
	}
	for i := range s.Prompts {
		if s.Prompts[i].ID == v.id {
			return &s.Prompts[i]
		}
	}
	return nil
}

func ended(state string) bool { return state == "done" || state == "failed" || state == "cancelled" }

// running says that the shown test has not ended.
func (v *promptView) running(s *api.Snapshot) bool {
	if t := v.test(s); t != nil {
		return !ended(t.State)
	}
	return v.id != "" && v.err == "" && !v.done
}

func (c *Console) send() tea.Cmd {
	v := &c.prompt
	text := strings.TrimSpace(v.editor.Value())
	model := v.modelName(c.snap)
	switch {
	case text == "":
		c.say(stDim, "write a prompt first")
		return nil
	case model == "":
		c.say(stWarn, "no model to ask")
		return nil
	case v.running(c.live):
		c.say(stWarn, "one is running; ctrl+x cancels it")
		return nil
	}
	v.show(newID())
	v.asked = text
	v.past = append(v.past, text)
	v.pastAt = len(v.past)
	v.editor.Reset()
	return tea.Batch(c.act(api.Action{Verb: api.PromptSend, ID: v.id, Target: model, Text: text}), c.promptTicker())
}

func newID() string {
	var b [9]byte
	rand.Read(b[:]) // never fails
	return "c" + hex.EncodeToString(b[:])
}

// show turns to a test, its answer unread.
func (v *promptView) show(id string) {
	v.id, v.after, v.done, v.err, v.rest, v.asked = id, 0, false, "", "", ""
	v.raw.Reset()
	v.wrapped, v.top, v.held = nil, 0, false
	v.rev++
}

func (c *Console) openHistory() {
	if c.snap != nil && c.prompts.sel < len(c.snap.Prompts) {
		c.prompt.show(c.snap.Prompts[c.prompts.sel].ID)
	}
}

func (c *Console) cancelPrompt() tea.Cmd {
	return c.act(api.Action{Verb: api.PromptCancel, Target: c.prompt.id})
}

// promptTicker reads the answer while it is on screen and not whole.
func (c *Console) promptTicker() tea.Cmd {
	if c.prompt.ticking {
		return nil
	}
	c.prompt.ticking = true
	return tea.Tick(streamEvery, func(time.Time) tea.Msg { return promptTickMsg{} })
}

func (c *Console) promptTick() tea.Cmd {
	c.prompt.ticking = false
	return c.followPrompt()
}

// followPrompt fetches what is new of the answer, and goes on as long as more may come.
func (c *Console) followPrompt() tea.Cmd {
	v := &c.prompt
	if c.view != viewPrompt || v.id == "" || v.done || v.busy || v.ticking || v.err != "" {
		return nil
	}
	v.busy = true
	return fetchLog(c.src, "prompt/"+v.id, v.after)
}

func (c *Console) promptArrived(id string, msg logMsg) tea.Cmd {
	v := &c.prompt
	v.busy = false
	if id != v.id {
		return c.followPrompt()
	}
	t := v.test(c.live)
	if msg.err != nil { // tried again with the next snapshot, unless there is nothing to wait for
		if errors.Is(msg.err, api.ErrUnknown) && t != nil && ended(t.State) {
			v.done, v.err = true, "its text is no longer kept"
			c.touch()
		}
		return nil
	}
	for _, line := range msg.lines {
		if line.Seq > v.after || v.after == 0 {
			v.after = line.Seq
			v.add(line.Text)
		}
	}
	if len(msg.lines) > 0 {
		c.dirty = true
	}
	// The state comes by snapshot, the text by its own cursor: the answer is whole once the test has
	// ended and a read brings nothing more.
	if t != nil && ended(t.State) && len(msg.lines) == 0 {
		v.done = true
		v.rev++
		c.dirty = true
		return nil
	}
	if c.view == viewPrompt {
		return c.promptTicker()
	}
	return nil
}

func (v *promptView) answer() string { return v.raw.String() }

// add takes the next piece. Whole paragraphs are wrapped once and kept; only the last is wrapped anew.
func (v *promptView) add(piece string) {
	v.raw.WriteString(piece)
	v.rest += piece
	v.rev++
	v.settle()
}

func (v *promptView) settle() {
	if v.width <= 0 {
		return
	}
	for {
		i := strings.IndexByte(v.rest, '\n')
		if i < 0 && len(v.rest) > maxLine/2 { // one endless line: settle its first half
			i = strings.LastIndexByte(v.rest[:maxLine/4], ' ')
			if i < 0 {
				i = maxLine / 4
				for i > 0 && v.rest[i]&0xc0 == 0x80 {
					i--
				}
			}
			v.wrapped = append(v.wrapped, Sanitize(v.rest[:i]).wrap(v.width)...)
			v.rest = v.rest[i:]
			continue
		}
		if i < 0 {
			return
		}
		v.wrapped = append(v.wrapped, Sanitize(strings.TrimSuffix(v.rest[:i], "\r")).wrap(v.width)...)
		v.rest = v.rest[i+1:]
	}
}

// lay wraps the answer to a width.
func (v *promptView) lay(width int) []Text {
	if v.width != width {
		v.width, v.wrapped, v.rest = width, nil, v.raw.String()
		v.settle()
	}
	return append(slices.Clip(v.wrapped), Sanitize(v.rest).wrap(max(width, 1))...)
}

func (v *promptView) scroll(by int) {
	n := len(v.lay(v.width))
	last := max(n-max(v.height, 1), 0)
	if !v.held {
		v.top = last
	}
	v.top = max(min(v.top+by, last), 0)
	v.held = v.top < last
	v.rev++
}

// textCursor is where the terminal's own cursor stands: in the editor.
func (c *Console) textCursor() *tea.Cursor {
	if !c.typing() || c.snap == nil {
		return nil
	}
	for _, r := range c.rects {
		if r.Pane != panePrompt {
			continue
		}
		cur := c.prompt.editor.Cursor()
		if cur == nil {
			return nil
		}
		cur.Blink = false // a blinking cursor is the terminal's business
		cur.X += r.X + 1
		cur.Y += r.Y + 1
		if r.Boxed {
			cur.X++
		}
		if cur.X >= r.X+r.W || cur.Y >= r.Y+r.H {
			return nil
		}
		return cur
	}
	return nil
}
