package api

// RollPlan is what ModelRoll would do, as far as a snapshot tells.
type RollPlan struct {
	Workers []*Worker // that are restarted, in their order: those first that do not serve
	Stay    []*Worker // of the model and left as they are: stopped, drained, asleep, waiting for a GPU, or attached
	Serving int       // of all of them serve now
	Alone   bool      // the only one of Workers serves the model, and nobody would meanwhile: refused without Args["alone"]
}

// RollPlan says what a rolling restart of a model would come to now.
func (s *Snapshot) RollPlan(model string) RollPlan {
	var p RollPlan
	var idle, serving []*Worker
	attached := 0
	for i := range s.Workers {
		w := &s.Workers[i]
		if w.Model != model {
			continue
		}
		if w.State == Ready && !w.Stalled {
			p.Serving++
		}
		switch {
		case w.Kind == "attach":
			if w.State == Ready && !w.Stalled {
				attached++
			}
			p.Stay = append(p.Stay, w)
		case w.State == Ready:
			serving = append(serving, w)
		case w.State == Failed, w.State == Starting && w.Blocked == "":
			idle = append(idle, w)
		default:
			p.Stay = append(p.Stay, w)
		}
	}
	p.Alone = len(serving) == 1 && len(idle) == 0 && attached == 0
	p.Workers = append(idle, serving...)
	return p
}
