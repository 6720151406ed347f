package backend

import (
	"crypto/tls"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/vllmdeck/vllmdeck/config"
)

// certificates gives the TLS settings of the gateway; nil for none. The files are read again
// when they change, so that a renewed certificate needs no restart.
func certificates(t *config.TLS) (*tls.Config, error) {
	if t == nil {
		return nil, nil
	}
	k := &keyPair{files: *t}
	if _, err := k.get(nil); err != nil {
		return nil, err
	}
	return &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: k.get}, nil
}

type keyPair struct {
	files config.TLS

	mu      sync.Mutex
	pair    *tls.Certificate
	changed time.Time
}

// get implements tls.Config.GetCertificate. A pair that cannot be read leaves the old one.
func (k *keyPair) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	st, err := os.Stat(k.files.Cert)
	if err == nil && k.pair != nil && st.ModTime().Equal(k.changed) {
		return k.pair, nil
	}
	pair, err := tls.LoadX509KeyPair(k.files.Cert, k.files.Key)
	if err != nil {
		if k.pair != nil {
			return k.pair, nil
		}
		return nil, fmt.Errorf("read tls: cert and key: %w", err)
	}
	k.pair = &pair
	if st != nil {
		k.changed = st.ModTime()
	}
	return k.pair, nil
}
