package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/charmbracelet/x/term"
	"github.com/spf13/cobra"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

func promptCmd(g *globals) *cobra.Command {
	var model, system string
	var maxTokens int
	var temperature float64
	var asJSON bool
	cmd := &cobra.Command{
		Use:   `prompt "TEXT"`,
		Short: "Send a prompt through the gateway and stream the answer",
		Long: `Send a prompt through the gateway, as key "console", and stream the answer to stdout; the
figures go to stderr. TEXT "-", or none with input that is not a terminal, reads stdin.`,
		Example: "vllmdeck prompt \"What is the capital of France?\"\nvllmdeck prompt --json --max-tokens 64 \"Write a haiku\" | jq .ttft_seconds",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			text := ""
			if len(args) == 1 {
				text = args[0]
			}
			if text == "-" || (text == "" && !term.IsTerminal(os.Stdin.Fd())) {
				b, err := io.ReadAll(io.LimitReader(cmd.InOrStdin(), 1<<20))
				if err != nil {
					return fmt.Errorf("read prompt: %w", err)
				}
				text = string(b)
			}
			if strings.TrimSpace(text) == "" {
				return &exitError{code: exitUsage, err: errors.New(`no prompt: vllmdeck prompt "What is the capital of France?"`)}
			}
			c, s, err := g.snapshot(cmd.Context())
			if err != nil {
				return err
			}
			defer c.Close()
			if model == "" {
				if len(s.Models) == 0 {
					return errors.New(`no models: add a worker to the config and run "vllmdeck reload"`)
				}
				model = s.Models[0].Name
			}
			a := api.Action{Verb: api.PromptSend, ID: newPromptID(), Target: model, Text: text, Args: map[string]string{}}
			if cmd.Flags().Changed("max-tokens") {
				a.Args["max_tokens"] = strconv.Itoa(maxTokens)
			}
			if cmd.Flags().Changed("temperature") {
				a.Args["temperature"] = strconv.FormatFloat(temperature, 'g', -1, 64)
			}
			if system != "" {
				a.Args["system"] = system
			}
			err = runPrompt(cmd, c, a, asJSON)
			switch {
			case errors.Is(err, api.ErrUnknown):
				err = &exitError{code: exitUsage, err: fmt.Errorf("no model is called %q; there are: %s", model, modelNames(s))}
			case errors.Is(err, api.ErrRefused):
				err = &exitError{code: exitUsage, err: err}
			}
			return err
		},
	}
	cmd.Flags().StringVarP(&model, "model", "m", "", "model (default: the first of the config)")
	cmd.Flags().StringVar(&system, "system", "", "system message")
	cmd.Flags().IntVar(&maxTokens, "max-tokens", 0, "limit of the answer, in tokens (default: 512)")
	cmd.Flags().Float64Var(&temperature, "temperature", 0, "sampling temperature (default 0: the same prompt, the same answer)")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the answer and its figures as one JSON object")
	return cmd
}

// modelNames lists what may be asked for.
func modelNames(s *api.Snapshot) string {
	var names []string
	for _, m := range s.Models {
		names = append(append(names, m.Name), m.Aliases...)
	}
	return strings.Join(names, ", ")
}

func newPromptID() string { return "p-" + strings.ToLower(rand.Text()[:10]) }

// runPrompt sends a prompt and follows it to its end. Leaving early cancels it.
func runPrompt(cmd *cobra.Command, c api.Source, a api.Action, asJSON bool) error {
	ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	if err := c.Do(ctx, a); err != nil {
		return err
	}
	ended := false
	defer func() {
		if !ended {
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
			defer cancel()
			_ = c.Do(ctx, api.Action{Verb: api.PromptCancel, Target: a.ID})
		}
	}()
	out := cmd.OutOrStdout()
	raw := !isTerminal(out)
	var answer strings.Builder
	var after uint64
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return &exitError{code: exitFailed, err: errors.New("prompt cancelled")}
		case <-tick.C:
		}
		// State first: text that came before the end was seen is then complete.
		p, err := promptState(ctx, c, a.ID)
		if err != nil {
			return err
		}
		for {
			lines, err := c.Log(ctx, "prompt/"+a.ID, after)
			if err != nil {
				return err
			}
			if len(lines) == 0 {
				break
			}
			for _, l := range lines {
				after = l.Seq
				answer.WriteString(l.Text)
				if asJSON {
					continue
				}
				text := l.Text
				if !raw {
					text = safe(text)
				}
				if _, err := io.WriteString(out, text); err != nil {
					return err
				}
			}
		}
		if p == nil || p.State == "waiting" || p.State == "streaming" {
			continue
		}
		ended = true
		if asJSON {
			if err := printJSON(out, struct {
				*api.Prompt
				Answer string `json:"answer"`
			}{p, answer.String()}); err != nil {
				return err
			}
		} else {
			if after > 0 {
				fmt.Fprintln(out)
			}
			if p.State == "done" || after > 0 {
				fmt.Fprintln(cmd.ErrOrStderr(), promptFigures(p))
			}
		}
		if p.State != "done" {
			return fmt.Errorf("prompt %s: %s", p.State, p.Error)
		}
		return nil
	}
}

func promptState(ctx context.Context, c api.Source, id string) (*api.Prompt, error) {
	s, err := fetch(ctx, c)
	if err != nil {
		return nil, err
	}
	for i := range s.Prompts {
		if s.Prompts[i].ID == id {
			return &s.Prompts[i], nil
		}
	}
	return nil, nil
}

func promptFigures(p *api.Prompt) string {
	mark := ""
	if p.UsageSource != api.UsageUpstream {
		mark = "~"
	}
	parts := []string{
		"worker " + safe(p.Worker),
		"TTFT " + seconds(new(time.Duration(p.TTFT).Seconds())),
		figure(p.Rate, "%.1f tok/s"),
		fmt.Sprintf("%s%d + %s%d tokens", mark, p.Usage.Prompt(), mark, p.Usage.Completion()),
		"cost " + usd(p.Actual),
		"would have cost " + usd(p.Would),
		"finish " + safe(p.Finish),
	}
	if p.Simulated {
		parts = append(parts, "SIMULATED")
	}
	return strings.Join(parts, " · ")
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(f.Fd())
}
