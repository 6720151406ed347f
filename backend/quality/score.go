package quality

import "math"

// Answer is one answer to be rated.
type Answer struct {
	Prompt string // the conversation; its last line that is not blank is what was asked
	Text   string // what the client saw
	Finish string // the worker's finish_reason; "" where not known
}

// Score rates an answer. Ratings are 0 (worst) to 1. For an answer that is not in English,
// Coherence, Engagement and Relevance are NaN: they were tuned on English and say nothing.
//
// A score is low where something is wrong. It is not high because an answer is true or wise:
// nothing here can know that.
type Score struct {
	Overall      float64 // health
	Length       float64 // saturating with the number of words, or near the length asked for
	Coherence    float64
	Engagement   float64
	Relevance    float64 // shares words with what was asked
	Degeneration float64 // 1: no repetition; 0: a loop
	Truncation   float64 // 1: ends like an end; 0: was cut off
	Refusal      float64 // 1: no refusal

	Truncated bool // finish_reason is length
	Refused   bool // begins like a refusal. A correct refusal is not bad: watch the rate
	Looping   bool // degenerate repetition
}

// Rater rates one aspect of an answer.
type Rater struct {
	Name    string
	English bool // says nothing about other languages
	rate    func(f *features, s *Score) float64
	into    func(s *Score) *float64
}

// Raters are all raters. Later ones build on what earlier ones put into the Score.
var Raters = []Rater{
	{"length", false, length, func(s *Score) *float64 { return &s.Length }},
	{"relevance", true, relevance, func(s *Score) *float64 { return &s.Relevance }},
	{"degeneration", false, degeneration, func(s *Score) *float64 { return &s.Degeneration }},
	{"truncation", false, truncation, func(s *Score) *float64 { return &s.Truncation }},
	{"refusal", false, refusal, func(s *Score) *float64 { return &s.Refusal }},
	{"coherence", true, coherence, func(s *Score) *float64 { return &s.Coherence }},
	{"engagement", true, engagement, func(s *Score) *float64 { return &s.Engagement }},
	{"health", false, health, func(s *Score) *float64 { return &s.Overall }},
}

// loops is the degeneration below which an answer counts as looping.
const loops = 0.5

// Rate rates an answer. It is deterministic and may be called from many goroutines.
func Rate(a Answer) Score {
	f := extract(a)
	defer f.release()
	var s Score
	for _, r := range Raters {
		v := math.NaN()
		if f.english || !r.English {
			v = clamp(r.rate(f, &s))
		}
		*r.into(&s) = v
	}
	s.Truncated = a.Finish == "length"
	s.Refused = s.Refusal < 1
	s.Looping = s.Degeneration < loops
	return s
}

func clamp(v float64) float64 {
	if !(v > 0) { // NaN too
		return 0
	}
	return min(v, 1)
}
