package systemd

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// mustBeLeft wants an error after which the unit may run, and that nobody starts
// it then.
func mustBeLeft(t *testing.T, d *Driver, err error) *LeftError {
	t.Helper()
	var left *LeftError
	if !errors.As(err, &left) || left.Unit != "web@1.service" {
		t.Fatal("the error is", err)
	}
	if closed(left.Gone) {
		t.Error("it has gone, says one who could not ask")
	}
	if _, err := d.Start(t.Context(), 1, "v1", new(identityList).record); !errors.Is(err, ErrRunning) {
		t.Error("it may run, and is started again:", err)
	}
	return left
}

// back lets connections be made again.
func (f *fakeSystemd) back() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.dialErr = nil
}

// A start that systemd has taken, while the bus goes away for longer than anybody
// waits: it is ended once the bus is back.
func TestAStartThatIsLostIsEnded(t *testing.T) {
	for name, gives := range map[string]error{"its answer is lost": errLost, "it is canceled": context.Canceled, "it is there": nil} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f, d := fakeDriver(t)
				defer d.Close()
				ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
				defer cancel()
				f.onStart = func() error {
					f.put(up...)
					f.dialErr = errors.New("nobody listens")
					f.conns[len(f.conns)-1].close()
					if errors.Is(gives, context.Canceled) {
						cancel()
					}
					return gives
				}
				began := time.Now()
				_, err := d.Start(ctx, 1, "v1", new(identityList).record)
				if passed := time.Since(began); passed > 30*time.Second+giveUpLimit {
					t.Error("it gave up only after", passed)
				}
				left := mustBeLeft(t, d, err)
				time.Sleep(time.Hour) // of the bubble's time
				if closed(left.Gone) || f.props["ActiveState"] != "active" {
					t.Errorf("it is %v without a bus", f.props["ActiveState"])
				}
				f.back()
				<-left.Gone
				if f.props["ActiveState"] != "inactive" {
					t.Errorf("it is %v", f.props["ActiveState"])
				}
				synctest.Wait()
				f.onStart = func() error {
					f.put(up...)
					f.put("InvocationID", []byte("fedcba9876543210"))
					return nil
				}
				if _, err := d.Start(t.Context(), 1, "v1", new(identityList).record); err != nil {
					t.Error("it cannot be started again:", err)
				}
			})
		})
	}
}

// One that is not wanted is ended, also where systemd cannot be asked for it now.
func TestWhatIsAbandonedIsEndedLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, d := fakeDriver(t)
		defer d.Close()
		u, err := d.Start(t.Context(), 1, "v1", new(identityList).record)
		if err != nil {
			t.Fatal(err)
		}
		f.drop(errors.New("nobody listens"))
		unwanted := errors.New("it is not wanted")
		err = u.Abandon(t.Context(), unwanted)
		left := mustBeLeft(t, d, err)
		if !errors.Is(err, unwanted) {
			t.Error(err)
		}
		f.back()
		<-left.Gone
		if f.props["ActiveState"] != "inactive" {
			t.Errorf("it is %v", f.props["ActiveState"])
		}
	})
}

// The Driver's end is not the unit's.
func TestCloseLeavesWhatIsLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, d := fakeDriver(t)
		f.onStart = func() error {
			f.put(up...)
			f.dialErr = errors.New("nobody listens")
			f.conns[len(f.conns)-1].close()
			return errLost
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := d.Start(ctx, 1, "v1", new(identityList).record)
		left := mustBeLeft(t, d, err)
		d.Close()
		if closed(left.Gone) {
			t.Error("it has gone")
		}
	})
}
