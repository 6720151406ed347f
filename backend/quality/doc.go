// Package quality rates how healthy answers are (length, coherence, engagement, defects). It
// detects defects; it does not claim to know quality: what its ratings separate well are
// loops, cut-off ends, gibberish, refusals, empty answers and answers to another question.
// Whether an answer is right, only a person or a judge can say.
package quality
