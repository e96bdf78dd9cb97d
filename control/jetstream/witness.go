package jetstream

import (
	"context"
	"errors"
	"strings"
	"sync"

	"github.com/holdfast-policy/holdfast/sdk/bus"
)

// Regions is how somebody who only looks on, such as a witness, reads receipts
// and leaf hashes from the gates of regions. It sees no records.
type Regions struct {
	Conn         *bus.Conn
	Tenant, User string
	Names        []string
}

func (r Regions) view(region string) link {
	return link{r.Conn, prefix(r.Tenant, region) + "view.", r.User, region}
}

// Receipts calls take, one at a time, with the last receipt of each boot in every
// region, and with those that come, until ctx ends. Receipts are not verified.
func (r Regions) Receipts(ctx context.Context, take func(region, node, boot string, receipt []byte)) error {
	var following sync.WaitGroup
	var taking sync.Mutex
	for _, region := range r.Names {
		following.Go(func() {
			r.view(region).follow(ctx, askReceipts, nil, func(items []item) error { // ends with ctx only
				taking.Lock()
				defer taking.Unlock()
				for _, it := range items {
					if parts := strings.Split(it.Name, "."); len(parts) == 3 && parts[0] == "rcpt" {
						take(region, parts[1], parts[2], it.Data)
					}
				}
				return nil
			})
		})
	}
	following.Wait()
	return ctx.Err()
}

// Leaves returns leaf hashes of a boot from a record on, of 32 bytes each: as many
// as one answer has; none when the region has none.
func (r Regions) Leaves(ctx context.Context, region, node, boot string, from uint64) ([]byte, error) {
	if err := errors.Join(checkToken("node", node), checkToken("boot", boot)); err != nil {
		return nil, err
	}
	a, err := r.view(region).ask(ctx, askLeaves+"."+node+"."+boot, decimal(from), nil)
	return a.Data, err
}
