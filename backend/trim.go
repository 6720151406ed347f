package backend

import (
	"slices"
	"strings"

	"github.com/vllmdeck/vllmdeck/backend/api"
	"github.com/vllmdeck/vllmdeck/backend/modelcache"
)

// A snapshot has a size that it keeps to, also in an outage, when every request, worker and prompt
// test has an error to tell. Foreign texts are whole until a part's room for them is used up, and
// from there on in short. The ledger and the logs have them all.
const (
	requestsRoom = 88 << 10 // bytes of all requests, as estimated by requestSize, of keys, crashes, cards, strays, advice and fixes
	errorsRoom   = 16 << 10 // of the errors in them
	noticesRoom  = 16 << 10
	promptsRoom  = 4 << 10
	keysRoom     = 16 << 10 // as estimated by keySize
	crashesRoom  = 11 << 10 // as estimated by crashSize
	fixesRoom    = 12 << 10 // of the command lines of fixes
	cacheRoom    = 20 << 10 // of the model cache, as estimated by cacheModelSize, where requests leave it so much
)

// requestSize is about how many bytes of JSON a request takes, each attempt attemptSize more,
// without its errors.
const (
	requestSize = 560
	attemptSize = 140
)

// keySize is about how many bytes of JSON a key takes, without its models.
const keySize = 500

// crashSize is about how many bytes of JSON a crash takes, without its cause and remedy.
const crashSize = 330

// requestsLeast is the part of requestsRoom that the model cache leaves to requests.
const requestsLeast = 60 << 10

// cacheModelSize is about how many bytes of JSON a model of the cache takes, without its texts.
const cacheModelSize = 190

// fitter shortens texts to most bytes each while there is room for all, and then to least.
type fitter struct{ room, most, least int }

func (f *fitter) fit(text string) string {
	text = shorten(text, min(max(f.room, f.least), f.most))
	f.room -= len(text)
	return text
}

// trim makes requests fit for a snapshot. The last ones go if they do not fit into room.
func trim(requests []api.Request, room int) []api.Request {
	f := fitter{errorsRoom, 500, 60}
	for i := range requests {
		r := &requests[i]
		r.Prices, r.PriceVersion = nil, "" // the ledger's; a snapshot has the baseline's once, in Money
		r.Error = f.fit(r.Error)
		r.Attempts = slices.Clone(r.Attempts) // they belong to the request that is kept
		room -= requestSize + attemptSize*len(r.Attempts) + len(r.Error) + len(r.Client)
		for j := range r.Attempts {
			a := &r.Attempts[j]
			a.Error = f.fit(a.Error)
			room -= len(a.Error)
		}
		if room < 0 {
			return requests[:i]
		}
	}
	return requests
}

// trimKeys makes keys fit for a snapshot. Where there is no room for all, those that were used last
// are shown, each with all its models. It gives their size too.
func trimKeys(keys []api.Key) ([]api.Key, int) {
	byUse := slices.Clone(keys)
	slices.SortStableFunc(byUse, func(a, b api.Key) int { return b.Use.Last.Compare(a.Use.Last) })
	used := 0
	for i := range byUse {
		size := keySize
		for _, m := range byUse[i].Limits.Models {
			size += len(m) + len(`"",`)
		}
		if used+size > keysRoom {
			byUse = byUse[:i]
			break
		}
		used += size
	}
	slices.SortStableFunc(byUse, func(a, b api.Key) int { return strings.Compare(a.Name, b.Name) })
	return byUse, used
}

func trimNotices(notices []api.Notice) []api.Notice {
	f := fitter{noticesRoom, maxNoticeText, 100}
	for i := range notices {
		notices[i].Text = f.fit(notices[i].Text)
	}
	return notices
}

func trimPrompts(prompts []api.Prompt) []api.Prompt {
	f := fitter{promptsRoom, 500, 100}
	for i := range prompts {
		prompts[i].Error = f.fit(prompts[i].Error)
	}
	return prompts
}

// trimCrashes makes the newest crashes fit for a snapshot: without their command lines, and the oldest of
// them not where there is no room. The whole book has all (Log "crashes"). It gives their size too.
func trimCrashes(crashes []api.Crash) ([]api.Crash, int) {
	f := fitter{crashesRoom / 3, 300, 40}
	used := 0
	for i := range crashes {
		c := &crashes[i]
		c.Command = nil
		c.Cause, c.Remedy = f.fit(c.Cause), f.fit(c.Remedy)
		size := crashSize + len(c.Cause) + len(c.Remedy)
		if used+size > crashesRoom {
			return crashes[:i], used
		}
		used += size
	}
	return crashes, used
}

// adviceSize is about how many bytes of JSON an advice takes, without its texts and its fix.
const adviceSize = 150

// trimFixes makes advice and the fixes of workers fit for a snapshot: where there is no room for all command lines, the
// last ones go. It gives about how many bytes it all takes.
func trimFixes(workers []api.Worker, advice []api.Advice) int {
	room, size := fixesRoom, 0
	fit := func(at **api.Fix) {
		if *at == nil {
			return
		}
		f := **at // it is its worker's
		size += 60 + len(f.Why)
		n := 0
		for _, list := range [][]string{f.Set, f.Unset, f.Env} {
			for _, s := range list {
				size += len(s) + len(`"",`)
			}
		}
		for _, s := range f.Command {
			n += len(s) + len(`"",`)
		}
		if n > room {
			f.Command, n = nil, 0
			*at = &f
		}
		room -= n
		size += n
	}
	for i := range workers {
		fit(&workers[i].Fix)
	}
	for i := range advice {
		a := &advice[i]
		size += adviceSize + len(a.Text) + len(a.Remedy)
		fit(&a.Fix)
	}
	return size
}

// trimCache makes the model cache fit for a snapshot. Where there is no room for all, models that no worker needs go
// first, the smallest of them first. room is what it and the requests have together. It gives its size too.
func trimCache(c *api.Cache, room int) int {
	if c == nil {
		return 0
	}
	room = min(max(room-requestsLeast, cacheRoom/5), cacheRoom)
	c.Error = shorten(c.Error, 200)
	f := fitter{2 << 10, 500, 60}
	for i := range c.Downloads { // made for this snapshot
		c.Downloads[i].Error = f.fit(c.Downloads[i].Error)
		c.Downloads[i].File = shorten(c.Downloads[i].File, 100)
	}
	size := func(m *api.CacheModel) int {
		n := cacheModelSize + len(m.Name) + len(m.Path)
		for _, list := range [][]string{m.Workers, m.Missing} {
			for _, s := range list {
				n += len(s) + len(`"",`)
			}
		}
		return n
	}
	total := func() (n int) {
		for i := range c.Models {
			n += size(&c.Models[i])
		}
		return n
	}
	if total() > room {
		c.Models = slices.Clone(c.Models) // they are the cache's
		for i := range c.Models {
			c.Models[i].Missing = c.Models[i].Missing[:min(len(c.Models[i].Missing), 1)]
		}
	}
	for len(c.Models) > 0 && total() > room {
		c.Models = modelcache.Keep(c.Models, len(c.Models)*9/10)
	}
	return total() + len(c.Downloads)*cacheModelSize
}
