package main

const (
	ringHeld  = 1 << 20   // bytes of a stream that are held at least, once so many were written
	ringSlack = 256 << 10 // room above that, so that the writer always has a place to read to
	ringFirst = 4 << 10   // bytes allocated for a stream's first output
	ringStep  = 256 << 10 // bytes that make place for new output at once
)

// ring holds the newest output of one stream. Offsets count from the stream's first byte. It is grown on demand, because most
// processes write little. Not safe for concurrent use, except that the region from room may be filled meanwhile.
type ring struct {
	memory []byte
	start  int64 // offset of the oldest byte held
	end    int64 // offset after the newest
}

// room returns a free region to fill and then commit. `needed` is the oldest offset that must stay; without free memory,
// older output makes room. It returns nothing when all of the ring is needed.
func (r *ring) room(needed int64) []byte {
	capacity := int64(len(r.memory))
	if held := r.end - r.start; capacity < ringHeld+ringSlack && capacity-held <= capacity/2 {
		r.grow()
		capacity = int64(len(r.memory))
	}
	free := capacity - (r.end - r.start)
	if free == 0 {
		free = min(needed-r.start, ringStep)
		if free <= 0 {
			return nil
		}
		r.start += free
	}
	at := r.end % capacity
	return r.memory[at:min(at+free, capacity)]
}

func (r *ring) grow() {
	old := *r
	r.memory = make([]byte, min(max(ringFirst, 4*len(old.memory)), ringHeld+ringSlack))
	for at := old.start; at < old.end; {
		piece := old.at(at)
		copy(r.memory[at%int64(len(r.memory)):], piece) // a piece may wrap in the new memory
		if wrapped := at%int64(len(r.memory)) + int64(len(piece)) - int64(len(r.memory)); wrapped > 0 {
			copy(r.memory, piece[int64(len(piece))-wrapped:])
		}
		at += int64(len(piece))
	}
}

// commit counts n bytes of the region that room returned as written.
func (r *ring) commit(n int) { r.end += int64(n) }

// at returns held bytes from an offset on, as far as they lie together. start ≤ offset < end.
func (r *ring) at(offset int64) []byte {
	capacity := int64(len(r.memory))
	from := offset % capacity
	return r.memory[from:min(from+r.end-offset, capacity)]
}
