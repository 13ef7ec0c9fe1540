// The causes of a miss, in the order in which they are shown, and what each means to who looks for a remedy.

export const CAUSES = [
    { id: 'never_set', name: 'Never set', text: 'Nobody has stored it, as far as is remembered.' },
    { id: 'expired', name: 'Expired', text: 'Its lifetime was over. A longer one would have kept it.' },
    { id: 'evicted', name: 'Evicted', text: 'It had to make room. More memory would have kept it.' },
    { id: 'deleted', name: 'Deleted', text: 'Somebody has deleted it.' },
    { id: 'flushed', name: 'Flushed', text: 'It went with all others, by a flush.' },
    { id: 'moved', name: 'Moved', text: 'Its partition came from another node, which alone knows what left before.' },
    { id: 'lost', name: 'Lost', text: 'It did not survive a failover, or went with the memory of too many replicas.' },
];

export function causeName(id) {
    return CAUSES.find((cause) => cause.id === id)?.name ?? String(id);
}
