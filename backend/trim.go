package backend

import (
	"encoding/json"
	"slices"
	"strings"

	"github.com/vllmdeck/vllmdeck/backend/api"
	"github.com/vllmdeck/vllmdeck/backend/modelcache"
)

// A snapshot has a size that it keeps to, also in an outage, when every request, worker and prompt
// test has an error to tell. Foreign texts are whole until a part's room for them is used up, and
// from there on in short. The ledger and the logs have them all. The requests get what all else leaves.
const (
	snapshotRoom  = 254 << 10 // bytes of JSON of the whole
	requestsLeast = 68 << 10  // that the model cache leaves to requests
	cacheRoom     = 20 << 10  // of the model cache, where requests leave it so much
	keysRoom      = 12 << 10
	crashesRoom   = 10 << 10
	adviceRoom    = 8 << 10

	// Of texts alone.
	errorsRoom   = 8 << 10 // of requests and their attempts
	workersRoom  = 6 << 10 // errors and remedies of workers
	commandsRoom = 12 << 10
	noticesRoom  = 5 << 10
	promptsRoom  = 4 << 10
	rollsRoom    = 2 << 10
)

// jsonSize is how many bytes of JSON v takes, with the comma behind it.
func jsonSize(v any) int {
	text, err := json.Marshal(v)
	if err != nil {
		return 0 // and no snapshot either
	}
	return len(text) + 1
}

// within gives as many of the first of list as fit into room bytes of JSON, and what they take.
func within[T any](list []T, room int) ([]T, int) {
	used := 0
	for i := range list {
		size := jsonSize(&list[i])
		if used+size > room {
			return list[:i], used
		}
		used += size
	}
	return list, used
}

// fitter shortens texts to most bytes each while there is room for all, and then to least.
type fitter struct{ room, most, least int }

func (f *fitter) fit(text string) string {
	text = api.Shorten(text, min(max(f.room, f.least), f.most))
	f.room -= len(text)
	return text
}

// fit makes a snapshot as small as it is to be.
func fit(s *api.Snapshot) {
	trimNotices(s.Notices)
	trimPrompts(s.Prompts)
	trimRolls(s.Rolls)
	s.Keys, s.Crashes, s.Advice = trimKeys(s.Keys), trimCrashes(s.Crashes), trimWorkers(s.Workers, s.Advice)
	rest := *s
	rest.Cache, rest.Requests = nil, nil
	room := snapshotRoom - jsonSize(&rest)
	if s.Cache != nil {
		trimCache(s.Cache, room)
		room -= jsonSize(s.Cache)
	}
	s.Requests = trimRequests(s.Requests, max(room, requestsLeast/4)) // with very many workers it is over its size
}

// trimRequests makes requests fit for a snapshot. The last ones go if they do not fit into room bytes of JSON.
func trimRequests(requests []api.Request, room int) []api.Request {
	f := fitter{errorsRoom, 500, 60}
	for i := range requests {
		r := &requests[i]
		r.Prices, r.PriceVersion = nil, "" // the ledger's; a snapshot has the baseline's once, in Money
		r.Error = f.fit(r.Error)
		r.Attempts = slices.Clone(r.Attempts) // they belong to the request that is kept
		for j := range r.Attempts {
			r.Attempts[j].Error = f.fit(r.Attempts[j].Error)
		}
		size := jsonSize(r)
		if size > room {
			return requests[:i]
		}
		room -= size
	}
	return requests
}

// trimKeys makes keys fit for a snapshot. Where there is no room for all, those that were used last
// are shown, each with all its models.
func trimKeys(keys []api.Key) []api.Key {
	byUse := slices.Clone(keys)
	slices.SortStableFunc(byUse, func(a, b api.Key) int { return b.Use.Last.Compare(a.Use.Last) })
	byUse, _ = within(byUse, keysRoom)
	slices.SortStableFunc(byUse, func(a, b api.Key) int { return strings.Compare(a.Name, b.Name) })
	return byUse
}

func trimNotices(notices []api.Notice) {
	f := fitter{noticesRoom, maxNoticeText, 60}
	for i := range notices {
		notices[i].Text = f.fit(notices[i].Text)
	}
}

func trimPrompts(prompts []api.Prompt) {
	f := fitter{promptsRoom, 800, 60}
	for i := range prompts {
		p := &prompts[i]
		p.Prompt, p.Error = f.fit(p.Prompt), f.fit(api.Shorten(p.Error, 500))
	}
}

// trimCrashes makes the newest crashes fit for a snapshot: without their command lines, and the oldest of
// them not where there is no room. The whole book has all (Log "crashes").
func trimCrashes(crashes []api.Crash) []api.Crash {
	f := fitter{crashesRoom / 3, 300, 40}
	for i := range crashes {
		c := &crashes[i]
		c.Command = nil
		c.Cause, c.Remedy = f.fit(c.Cause), f.fit(c.Remedy)
	}
	crashes, _ = within(crashes, crashesRoom)
	return crashes
}

// trimWorkers makes workers and advice fit for a snapshot. Where there is no room for all command lines, those of
// the last fixes go, and those that run are cut.
func trimWorkers(workers []api.Worker, advice []api.Advice) []api.Advice {
	said, room := fitter{workersRoom, 600, 80}, commandsRoom
	for i := range workers {
		w := &workers[i]
		w.Error, w.Remedy, w.Blocked = said.fit(w.Error), said.fit(w.Remedy), said.fit(w.Blocked)
		n := 0
		for j := range w.Command {
			if n += len(w.Command[j]) + len(`"",`); n > max(room, commandsRoom/32) {
				w.Command = append(slices.Clone(w.Command[:j]), "…") // it is its worker's
				break
			}
		}
		room -= n
	}
	fit := func(at **api.Fix) {
		if *at == nil {
			return
		}
		n := 0
		for _, s := range (*at).Command {
			n += len(s) + len(`"",`)
		}
		if n > room {
			f := **at // it is its worker's
			f.Command, n = nil, 0
			*at = &f
		}
		room -= n
	}
	for i := range workers {
		fit(&workers[i].Fix)
	}
	texts := fitter{adviceRoom / 4, 500, 60}
	for i := range advice {
		a := &advice[i]
		fit(&a.Fix)
		a.Text, a.Remedy = texts.fit(a.Text), texts.fit(a.Remedy)
	}
	advice, _ = within(advice, adviceRoom)
	return advice
}

func trimRolls(rolls []api.Roll) {
	f := fitter{rollsRoom, 300, 60}
	for i := range rolls {
		rolls[i].Error = f.fit(rolls[i].Error)
	}
}

// trimCache makes the model cache fit for a snapshot. Where there is no room for all, models that no worker needs go
// first, the smallest of them first. room is what it and the requests have together.
func trimCache(c *api.Cache, room int) {
	if c == nil {
		return
	}
	room = min(max(room-requestsLeast, cacheRoom/4), cacheRoom)
	c.Error = api.Shorten(c.Error, 200)
	f := fitter{1 << 10, 500, 60}
	for i := range c.Downloads { // made for this snapshot
		c.Downloads[i].Error = f.fit(c.Downloads[i].Error)
		c.Downloads[i].File = api.Shorten(c.Downloads[i].File, 100)
	}
	if jsonSize(c) > room {
		c.Models = slices.Clone(c.Models) // they are the cache's
		for i := range c.Models {
			c.Models[i].Missing = c.Models[i].Missing[:min(len(c.Models[i].Missing), 1)]
		}
	}
	for len(c.Models) > 0 && jsonSize(c) > room {
		c.Models = modelcache.Keep(c.Models, len(c.Models)*9/10)
	}
}
