package launch

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// The control socket of a shim: one JSON line each way per connection. It must stay readable
// for engines of other versions, so it says little:
//
//	{"op":"status"} → {"marker":"w0/…","pids":[1,2,3]}
//	{"op":"kill"}   → {"marker":"w0/…"} once the tree is gone, or with "error" after 5 s
type (
	request struct {
		Op string `json:"op"`
	}
	response struct {
		Marker string `json:"marker"`
		PIDs   []int  `json:"pids,omitempty"`
		Error  string `json:"error,omitempty"`
	}
)

// killRequest asks run to end the tree; left is buffered and gets one answer.
type killRequest struct{ left chan error }

// maxSocketPath is what fits into sockaddr_un with its closing zero.
const maxSocketPath = 107

// listen opens the control socket, in the worker's folder if its path is short enough, else
// under a short name in the runtime folder.
func listen(folder, runtime, marker string) (*net.UnixListener, string, error) {
	path := filepath.Join(folder, socketName)
	if len(path) > maxSocketPath {
		dir, err := runtimeDir(runtime)
		if err != nil {
			return nil, "", err
		}
		sum := sha256.Sum256([]byte(folder + marker))
		path = filepath.Join(dir, hex.EncodeToString(sum[:8])+".sock")
	}
	_ = os.Remove(path) // of a shim that was killed: we hold the folder's lock
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, "", fmt.Errorf("open control socket: %w", err)
	}
	// The folder is 0700, so nobody came in between.
	if err := os.Chmod(path, 0o600); err != nil {
		_ = ln.Close()
		return nil, "", err
	}
	return ln, path, nil
}

// serve answers control connections until the listener is closed.
func (s *shim) serve() {
	defer s.conns.Done()
	for {
		c, err := s.ln.AcceptUnix()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			select { // out of descriptors: clients wait in the backlog
			case <-s.ended:
				return
			case <-time.After(50 * time.Millisecond):
			}
			continue
		}
		s.conns.Go(func() {
			defer c.Close()
			s.handle(c)
		})
	}
}

func (s *shim) handle(c *net.UnixConn) {
	_ = c.SetDeadline(time.Now().Add(2 * time.Second))
	if uid, err := peerUID(c); err != nil || uid != os.Getuid() {
		return
	}
	var req request
	line, err := bufio.NewReader(io.LimitReader(c, 4096)).ReadBytes('\n')
	if err != nil || json.Unmarshal(line, &req) != nil {
		return
	}
	res := response{Marker: s.Marker}
	switch req.Op {
	case "status":
		for _, p := range s.rec.kin().members(scan(), false) {
			res.PIDs = append(res.PIDs, p.PID)
		}
	case "kill":
		k := killRequest{left: make(chan error, 1)}
		select {
		case s.kills <- k:
			if err := <-k.left; err != nil {
				res.Error = err.Error()
			}
		case <-s.ended:
		}
	default:
		res.Error = "unknown op " + req.Op
	}
	_ = c.SetDeadline(time.Now().Add(time.Second))
	_ = json.NewEncoder(c).Encode(res)
}

func peerUID(c *net.UnixConn) (int, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Ucred
	cerr := raw.Control(func(fd uintptr) {
		cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err := errors.Join(cerr, err); err != nil {
		return 0, err
	}
	return int(cred.Uid), nil
}

// ask sends one request to a shim.
func ask(ctx context.Context, socket, op string, limit time.Duration) (response, error) {
	var res response
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	var d net.Dialer
	c, err := d.DialContext(ctx, "unix", socket)
	if err != nil {
		return res, err
	}
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if err := json.NewEncoder(c).Encode(request{Op: op}); err != nil {
		return res, err
	}
	err = json.NewDecoder(io.LimitReader(c, 1<<20)).Decode(&res)
	return res, errors.Join(ctx.Err(), err)
}
