package quality

import (
	"math"
	"regexp"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Each section is one rater. The formulas are the result of measuring candidates against
// human ratings of dialogues and pairwise preferences: what looked plausible and did not
// separate anything (connectives, similarity of neighbouring sentences) is not here.

// Length

// usualWords is how many words an accepted answer typically has.
const usualWords = 120

var (
	askedWords = regexp.MustCompile(`(?i)\b(\d{1,5})[ -]words?\b`)
	askedBrief = regexp.MustCompile(`(?i)\b(one sentence|single sentence|briefly|in short|one word|in a word)\b`)
)

// length saturates at the usual number of words; where the prompt asks for a length it is
// how near the answer comes to that.
func length(f *features, _ *Score) float64 {
	n := float64(f.words)
	if n == 0 {
		return 0
	}
	if m := askedWords.FindStringSubmatch(f.asked); m != nil {
		if k, err := strconv.Atoi(m[1]); err == nil && k > 0 {
			d := math.Log(n / float64(k))
			return math.Exp(-d * d / (2 * 0.35 * 0.35))
		}
	}
	if askedBrief.MatchString(f.asked) {
		if n <= 60 {
			return 1
		}
		d := math.Log(n / 60)
		return math.Exp(-d * d / (2 * 0.8 * 0.8))
	}
	return min(1, math.Log(1+n)/math.Log(1+usualWords))
}

// Relevance

// relevance is how much of what was asked the answer takes up (recall against its last line)
// and how much of the answer is about the conversation (precision against its last 3,000
// characters). A prompt without content words cannot be missed.
func relevance(f *features, _ *Score) float64 {
	recall, precision := 0.5, 0.25 // the values that count as full
	if n := len(f.last); n > 0 {
		recall = float64(f.recalled) / float64(min(n, 12))
	}
	if len(f.context) > 0 {
		precision = 0
		if f.content > 0 {
			precision = float64(f.onTopic) / float64(f.content)
		}
	}
	return clamp(0.6*recall/0.5 + 0.4*precision/0.25)
}

// Degeneration

// degeneration falls with the worst kind of repetition: of four words, of anything a
// compressor finds, of one word in a row, of lines, of sentences.
func degeneration(f *features, _ *Score) float64 {
	worst := clamp(f.repeated4 / 0.35)
	if len(f.text) > 200 {
		worst = max(worst, clamp((f.compression()-2.6)/2.4))
	}
	worst = max(worst, clamp(float64(f.run-3)/5), clamp(f.duplicateLines/0.4), clamp(f.duplicateSentences/0.4))
	return 1 - worst
}

// Truncation

const fence = "```"

// truncation is 0 where the worker says the answer was cut or a code block is open, and
// otherwise how much the end looks like one.
func truncation(f *features, _ *Score) float64 {
	if f.finish == "length" || strings.Count(f.text, fence)%2 == 1 {
		return 0
	}
	text := strings.TrimRightFunc(f.text, unicode.IsSpace)
	if strings.HasSuffix(text, fence) || endsTerminal(text) {
		return 1
	}
	line := text[strings.LastIndexByte(text, '\n')+1:]
	if text != "" && (isListItem(line) || len(strings.Fields(line)) <= 4) {
		return 0.9
	}
	return 0.5
}

// endsTerminal looks for a mark that ends a sentence, past closing quotes and brackets. An
// emoji ends a message as well.
func endsTerminal(s string) bool {
	for s != "" {
		r, size := utf8.DecodeLastRuneInString(s)
		switch {
		case strings.ContainsRune(".!?…。！？।؟", r), unicode.Is(unicode.So, r), unicode.Is(unicode.Sk, r):
			return true
		case strings.ContainsRune("\"'”’»)]}*_`\u200d\ufe0f", r):
			s = s[:len(s)-size]
		default:
			return false
		}
	}
	return false
}

// Refusal

// refusals are how answers begin that decline to answer.
var refusals = []string{
	"i can't assist", "i cannot assist", "i can't help with", "i cannot help with", "i can't help you with", "i cannot help you with",
	"i can't provide", "i cannot provide", "i can't fulfill", "i cannot fulfill", "i can't comply", "i cannot comply",
	"i can't do that", "i cannot do that", "i can't create", "i cannot create", "i can't generate", "i cannot generate",
	"i can't write", "i cannot write", "i can't answer", "i cannot answer", "i can't share", "i cannot share",
	"i can't support", "i cannot support", "i can't engage", "i cannot engage", "i can't discuss", "i cannot discuss",
	"i'm unable to", "i am unable to", "i'm not able to help", "i am not able to help", "i'm not able to assist", "i am not able to assist",
	"i'm not able to provide", "i am not able to provide", "i won't be able to", "i will not be able to",
	"i won't help", "i will not help", "i won't provide", "i will not provide", "i must decline", "i have to decline", "i must refuse",
	"sorry, but i can't", "sorry, but i cannot", "sorry but i can't", "sorry but i cannot", "sorry, i can't", "sorry, i cannot",
	"sorry, but i'm not able", "sorry, but i am not able", "i apologize, but i can't", "i apologize, but i cannot",
	"i'm not comfortable", "i am not comfortable",
	"as an ai language model, i can't", "as an ai language model, i cannot", "as an ai language model, i can not",
	"as an ai, i can't", "as an ai, i cannot", "as a language model, i can't", "as a language model, i cannot",
	"against my guidelines", "against my programming", "violates my", "goes against my",
	"unable to assist", "unable to help with", "unable to fulfill", "can't help with that", "cannot help with that",
}

// refusal looks for such a phrase in the first 300 characters.
func refusal(f *features, _ *Score) float64 {
	head := f.text
	if len(head) > 300 {
		head = head[:300]
	}
	head = strings.ReplaceAll(strings.ToLower(head), "’", "'")
	for _, p := range refusals {
		if strings.Contains(head, p) {
			return 0.15
		}
	}
	return 1
}

// Coherence

// coherence joins relevance, a proper end, sentences of readable length and the share of
// grammar words that fluent English has; repetition spoils it.
func coherence(f *features, s *Score) float64 {
	sentence := 0.0
	if f.sentences > 0 {
		sentence = float64(f.words) / float64(f.sentences)
	}
	readable := 1 - math.Abs(sentence-18)/40
	fluent := clamp(f.stopShare() / 0.25)
	return clamp(.45*s.Relevance+.20*s.Truncation+.15*readable+.20*fluent) * (.4 + .6*s.Degeneration)
}

// Engagement

// engagement is mostly how many different content words there are, then a question to the reader,
// speaking to the reader, and visible structure.
func engagement(f *features, _ *Score) float64 {
	e := .65 * math.Log(1+float64(f.types)) / math.Log(61)
	if strings.ContainsRune(f.text, '?') {
		e += .10
	}
	if f.words > 0 {
		e += .10 * clamp(float64(f.you)/float64(f.words)/.02)
	}
	if f.structured {
		e += .15
	}
	return clamp(e)
}

// Health

// health is the overall rating: a defect spoils it, whatever else is right. In languages the
// other parts know nothing about, length alone stands beside the defects.
func health(f *features, s *Score) float64 {
	parts := s.Length
	if f.english {
		parts = .30*s.Length + .40*s.Coherence + .30*s.Engagement
	}
	return min(s.Degeneration, s.Refusal) * (.5 + .5*s.Truncation) * parts
}
