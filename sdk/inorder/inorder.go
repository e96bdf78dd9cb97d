// Package inorder does independent work side by side and hands over what came of
// it in the order in which the work came.
package inorder

import (
	"iter"
	"sync"
)

// Map calls f for every value of in, at most workers at once, and yields the
// results in the order of in. No more than twice workers results wait at a time.
// in is drawn from one goroutine, which is not the caller's. When the consumer
// stops early, in is drawn no further, and Map returns after the calls that run.
func Map[In, Out any](workers int, in iter.Seq[In], f func(In) Out) iter.Seq[Out] {
	workers = max(workers, 1)
	type job struct {
		in   In
		out  Out
		done chan struct{}
	}
	return func(yield func(Out) bool) {
		ordered, jobs, stop := make(chan *job, 2*workers), make(chan *job), make(chan struct{})
		var running sync.WaitGroup
		defer running.Wait()
		defer close(stop)
		running.Go(func() {
			defer close(ordered)
			defer close(jobs)
			for v := range in {
				j := &job{in: v, done: make(chan struct{})}
				select {
				case ordered <- j:
				case <-stop:
					return
				}
				select {
				case jobs <- j:
				case <-stop:
					return
				}
			}
		})
		for range workers {
			running.Go(func() {
				for j := range jobs {
					j.out = f(j.in)
					close(j.done)
				}
			})
		}
		for j := range ordered {
			<-j.done
			if !yield(j.out) {
				return
			}
		}
	}
}
