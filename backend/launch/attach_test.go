package launch

import (
	"errors"
	"testing"
)

func TestAttachedServersAreNotEnded(t *testing.T) {
	i, err := Attach{}.Launch(t.Context(), Spec{Name: "w1", URL: "http://127.0.0.1:8001"})
	if err != nil {
		t.Fatal(err)
	}
	if err := i.Terminate(); !errors.Is(err, ErrNotOurs) {
		t.Errorf("Terminate = %v, want ErrNotOurs", err)
	}
	if err := i.Kill(t.Context()); !errors.Is(err, ErrNotOurs) {
		t.Errorf("Kill = %v, want ErrNotOurs", err)
	}
	select {
	case <-i.Done():
		t.Error("Done is closed before Close")
	default:
	}
	if err := errors.Join(i.Close(), i.Close()); err != nil {
		t.Errorf("Close twice = %v", err)
	}
	<-i.Done()
	if _, err := (Attach{}).Launch(t.Context(), Spec{Name: "w1"}); err == nil {
		t.Error("Launch without a URL is accepted")
	}
	if i, err := (Attach{}).Adopt(t.Context(), Spec{}); i != nil || err != nil {
		t.Errorf("Adopt = %v, %v, want nothing", i, err)
	}
}
