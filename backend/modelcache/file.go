package modelcache

import (
	"context"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"time"
)

// silence is how long a download may give no byte before its connection is given up.
const silence = 30 * time.Second

// file makes one file of the snapshot be there: its blob, checked, and the link to it.
func (s *store) file(ctx context.Context, f file) error {
	if n, ok := size(s.pointer(f)); ok && n == f.size {
		if link, err := os.Readlink(s.pointer(f)); err != nil || filepath.Base(link) == f.etag {
			s.d.had(n)
			return nil
		}
	}
	for _, dir := range []string{filepath.Join(s.dir, "blobs"), filepath.Dir(s.pointer(f))} {
		if err := os.MkdirAll(dir, 0o777); err != nil {
			return fmt.Errorf("store model: %w", err)
		}
	}
	unlock, err := lockFile(ctx, filepath.Join(s.locks, f.etag+".lock"), false)
	if err != nil {
		return err
	}
	defer unlock()
	if n, ok := size(s.blob(f)); ok && n == f.size {
		s.d.had(n)
	} else if err := s.download(ctx, f); err != nil {
		return err
	}
	return s.link(f)
}

// link points the snapshot's name of a file to its blob. Where there are no links, the file is moved there, as
// huggingface_hub does.
func (s *store) link(f file) error {
	path := s.pointer(f)
	to, err := filepath.Rel(filepath.Dir(path), s.blob(f))
	if err != nil {
		return fmt.Errorf("store %s: %w", f.name, err)
	}
	if was, err := os.Readlink(path); err == nil && was == to {
		return nil
	}
	if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
		return fmt.Errorf("store %s: %w", f.name, err)
	}
	err = os.Symlink(to, path)
	switch {
	case err == nil:
		return nil
	case noLinks(err):
		err = os.Rename(s.blob(f), path)
	case os.IsExist(err): // another program was as fast
		if was, rerr := os.Readlink(path); rerr == nil && was == to {
			return nil
		}
	}
	if err != nil {
		return fmt.Errorf("store %s: %w", f.name, err)
	}
	return nil
}

// errHash says that what came is not what the hub said it would be.
var errHash = errors.New("its contents are not what the hub's checksum says")

// download fetches a blob, from where an earlier try broke off.
func (s *store) download(ctx context.Context, f file) error {
	defer s.d.fetching(f)()
	err := s.fill(ctx, f)
	if errors.Is(err, errHash) {
		// The part that was there may be at fault: once more from the beginning.
		err = s.fill(ctx, f)
	}
	if err != nil && ctx.Err() == nil {
		return fmt.Errorf("fetch %s: %w", f.name, err)
	}
	return err
}

func (s *store) fill(ctx context.Context, f file) (err error) {
	out, err := os.OpenFile(s.partial(f), os.O_RDWR|os.O_CREATE, 0o666)
	if err != nil {
		return fmt.Errorf("store file: %w", err)
	}
	defer func() {
		if cerr := out.Close(); err == nil && cerr != nil {
			err = fmt.Errorf("store file: %w", cerr)
		}
	}()
	sum := checksum(f)
	at, err := io.Copy(sum, out) // what an earlier try left
	if err != nil {
		return fmt.Errorf("read partial file: %w", err)
	}
	if at > f.size {
		if at, err = 0, out.Truncate(0); err != nil {
			return fmt.Errorf("store file: %w", err)
		}
		sum = checksum(f)
	}
	s.d.had(at)
	err = s.retry(ctx, func() error {
		if at == f.size {
			return nil
		}
		body, from, err := s.hub.open(ctx, s.sha, f, at)
		if err != nil {
			return err
		}
		if from != at { // it takes no ranges
			s.d.had(-at)
			at, sum = 0, checksum(f)
			if err := out.Truncate(0); err != nil {
				_ = body.Close()
				return fmt.Errorf("store file: %w", err)
			}
		}
		if _, err := out.Seek(at, io.SeekStart); err != nil {
			_ = body.Close()
			return fmt.Errorf("store file: %w", err)
		}
		n, err := s.copy(ctx, io.MultiWriter(out, sum), body, f.size-at)
		at += n
		if err != nil && n > 0 {
			return &progressError{err}
		}
		return err
	})
	if err != nil {
		return err
	}
	if !matches(sum, f) {
		s.d.had(-at)
		if err := out.Truncate(0); err != nil {
			return fmt.Errorf("store file: %w", err)
		}
		return errHash
	}
	if err := out.Sync(); err != nil {
		return fmt.Errorf("store file: %w", err)
	}
	if err := os.Rename(s.partial(f), s.blob(f)); err != nil {
		return fmt.Errorf("store file: %w", err)
	}
	return nil
}

// copy takes exactly most bytes from body, which it closes. A silent connection is closed.
func (s *store) copy(ctx context.Context, to io.Writer, body io.ReadCloser, most int64) (int64, error) {
	stop := context.AfterFunc(ctx, func() { _ = body.Close() })
	defer stop()
	var silent atomic.Bool
	still := time.AfterFunc(silence, func() {
		silent.Store(true)
		_ = body.Close()
	})
	defer still.Stop()
	defer body.Close()
	buf := make([]byte, 256<<10)
	var total int64
	for total < most {
		n, err := body.Read(buf[:min(int64(len(buf)), most-total)])
		if n > 0 {
			still.Reset(silence)
			if _, werr := to.Write(buf[:n]); werr != nil {
				return total, fmt.Errorf("store file: %w", werr)
			}
			total += int64(n)
			s.d.got(int64(n), time.Now())
		}
		if err != nil && total < most {
			switch {
			case silent.Load():
				err = fmt.Errorf("silent for %v", silence)
			case errors.Is(err, io.EOF):
				err = io.ErrUnexpectedEOF
			}
			return total, &netError{host: s.hub.base.Host, err: hidden(err)}
		}
	}
	return total, nil
}

// checksum is the hash that a file's ETag is: sha256 of a large file, git's hash of a small one; nil where
// it is neither.
func checksum(f file) hash.Hash {
	switch _, err := hex.DecodeString(f.etag); {
	case err == nil && len(f.etag) == sha256.Size*2:
		return sha256.New()
	case err == nil && len(f.etag) == sha1.Size*2:
		h := sha1.New() // git's choice, not for safety: it finds what was cut or mixed up
		_, _ = h.Write([]byte("blob " + strconv.FormatInt(f.size, 10) + "\x00"))
		return h
	}
	return noHash{}
}

func matches(h hash.Hash, f file) bool {
	_, none := h.(noHash)
	return none || hex.EncodeToString(h.Sum(nil)) == f.etag
}

// noHash is for mirrors whose ETags are no hashes: the size must do.
type noHash struct{ hash.Hash }

func (noHash) Write(p []byte) (int, error) { return len(p), nil }
