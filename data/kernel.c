/*
 * kernel.c - data structures and services of a small teaching kernel
 *
 * From the bottom up: intrusive lists, locks and reference counts, a byte
 * ring, the log, the page and slab allocators, a red-black tree, a radix
 * tree, timers, the scheduler with its wait queues, the page cache, an
 * in-memory file system, a device model with a driver, and booting.
 *
 * Functions return zero or a negative error number unless they say
 * otherwise. Locks nest from the top down: a file system lock is taken
 * before a page cache lock, and that one before an allocator lock.
 */

#include <limits.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ENOENT		2
#define EIO		5
#define EAGAIN		11
#define ENOMEM		12
#define EBUSY		16
#define EEXIST		17
#define ENOTDIR		20
#define EISDIR		21
#define EINVAL		22
#define EFBIG		27
#define EDEADLK		35
#define ENAMETOOLONG	36
#define ENOTEMPTY	39

#define MAX_ERRNO	4095

#define PAGE_SHIFT	12
#define PAGE_SIZE	((size_t)1 << PAGE_SHIFT)
#define PAGE_MASK	(PAGE_SIZE - 1)
#define NR_PAGES	512
#define MAX_ORDER	6

#define BITS_PER_LONG	(CHAR_BIT * sizeof(unsigned long))
#define ARRAY_SIZE(a)	(sizeof(a) / sizeof((a)[0]))
#define DIV_ROUND_UP(n, d)	(((n) + (d) - 1) / (d))
#define ALIGN_UP(x, a)	(((x) + (a) - 1) & ~((a) - 1))

#define container_of(ptr, type, member) \
	((type *)((char *)(ptr) - offsetof(type, member)))

#define kassert(cond)							\
	do {								\
		if (!(cond))						\
			panic("%s:%d: assertion failed: %s",		\
			      __func__, __LINE__, #cond);		\
	} while (0)

_Noreturn void panic(const char *fmt, ...);
int printk(int level, const char *fmt, ...);

enum log_level {
	LOG_ERR,
	LOG_WARN,
	LOG_INFO,
};

/*
 * Errors travel inside pointers: the last page of the address space is
 * never mapped, so a value in it can only be a negative error number.
 */
static inline void *err_ptr(long error)
{
	return (void *)(intptr_t)error;
}

static inline long ptr_err(const void *ptr)
{
	return (long)(intptr_t)ptr;
}

static inline bool is_err(const void *ptr)
{
	return (uintptr_t)ptr >= (uintptr_t)-MAX_ERRNO;
}

static inline size_t min_size(size_t a, size_t b)
{
	return a < b ? a : b;
}

/* --- Memory and strings --- */

void mem_copy(void *dst, const void *src, size_t len)
{
	unsigned char *d = dst;
	const unsigned char *s = src;

	while (len--)
		*d++ = *s++;
}

void mem_fill(void *dst, int byte, size_t len)
{
	unsigned char *d = dst;

	while (len--)
		*d++ = (unsigned char)byte;
}

int str_cmp(const char *a, const char *b)
{
	while (*a && *a == *b) {
		a++;
		b++;
	}
	return (unsigned char)*a - (unsigned char)*b;
}

/* --- Intrusive doubly linked lists --- */

/*
 * A list is a ring of links closed by a head that belongs to no object.
 * A link that is on no list points to itself, so that unlinking it once
 * more does no harm.
 */
struct list {
	struct list *next;
	struct list *prev;
};

#define LIST_INIT(name)		{ &(name), &(name) }

#define list_entry(ptr, type, member)	container_of(ptr, type, member)

#define list_for_each(pos, head) \
	for ((pos) = (head)->next; (pos) != (head); (pos) = (pos)->next)

/* The body may unlink @pos, but not the link after it. */
#define list_for_each_safe(pos, tmp, head)				\
	for ((pos) = (head)->next, (tmp) = (pos)->next; (pos) != (head); \
	     (pos) = (tmp), (tmp) = (pos)->next)

static inline void list_init(struct list *l)
{
	l->next = l;
	l->prev = l;
}

static inline bool list_empty(const struct list *head)
{
	return head->next == head;
}

static inline void list_between(struct list *l, struct list *prev,
				struct list *next)
{
	l->prev = prev;
	l->next = next;
	prev->next = l;
	next->prev = l;
}

static inline void list_push(struct list *head, struct list *l)
{
	list_between(l, head, head->next);
}

static inline void list_append(struct list *head, struct list *l)
{
	list_between(l, head->prev, head);
}

static inline void list_unlink(struct list *l)
{
	l->prev->next = l->next;
	l->next->prev = l->prev;
	list_init(l);
}

static inline struct list *list_pop(struct list *head)
{
	struct list *l = head->next;

	if (l == head)
		return NULL;
	list_unlink(l);
	return l;
}

/* --- Spinlocks and reference counts --- */

/*
 * A ticket lock: each taker draws a number and waits until it is served,
 * which keeps the order fair when several processors compete.
 */
struct spinlock {
	atomic_uint next;
	atomic_uint owner;
};

#define SPINLOCK_INIT	{ 0, 0 }

static inline void cpu_relax(void)
{
	atomic_signal_fence(memory_order_seq_cst);
}

void spin_init(struct spinlock *lock)
{
	atomic_init(&lock->next, 0);
	atomic_init(&lock->owner, 0);
}

void spin_lock(struct spinlock *lock)
{
	unsigned int ticket;

	ticket = atomic_fetch_add_explicit(&lock->next, 1,
					   memory_order_relaxed);
	while (atomic_load_explicit(&lock->owner, memory_order_acquire) !=
	       ticket)
		cpu_relax();
}

bool spin_trylock(struct spinlock *lock)
{
	unsigned int ticket;

	ticket = atomic_load_explicit(&lock->owner, memory_order_acquire);
	return atomic_compare_exchange_strong(&lock->next, &ticket,
					      ticket + 1);
}

void spin_unlock(struct spinlock *lock)
{
	unsigned int now;

	now = atomic_load_explicit(&lock->owner, memory_order_relaxed);
	atomic_store_explicit(&lock->owner, now + 1, memory_order_release);
}

struct ref {
	atomic_int count;
};

static inline void ref_init(struct ref *r)
{
	atomic_init(&r->count, 1);
}

static inline int ref_read(struct ref *r)
{
	return atomic_load(&r->count);
}

/* Only a holder may call this: a count of zero can never rise again. */
void ref_get(struct ref *r)
{
	int old = atomic_fetch_add(&r->count, 1);

	kassert(old > 0 && old < INT_MAX);
}

/* Returns true to the caller that dropped the last reference. */
bool ref_put(struct ref *r)
{
	int old = atomic_fetch_sub(&r->count, 1);

	kassert(old > 0);
	return old == 1;
}

/* --- Byte ring --- */

/*
 * The two counters run freely and are masked on access, so a full ring
 * and an empty one differ without giving up a byte. Callers lock.
 */
struct ring {
	unsigned char *data;
	size_t size;
	size_t head;
	size_t tail;
};

int ring_init(struct ring *r, void *data, size_t size)
{
	if (!data || !size || size & (size - 1))
		return -EINVAL;
	r->data = data;
	r->size = size;
	r->head = 0;
	r->tail = 0;
	return 0;
}

static inline size_t ring_used(const struct ring *r)
{
	return r->head - r->tail;
}

static inline size_t ring_space(const struct ring *r)
{
	return r->size - ring_used(r);
}

/* Store as much of @src as fits; returns the number of bytes taken. */
size_t ring_write(struct ring *r, const void *src, size_t len)
{
	size_t at = r->head & (r->size - 1);
	size_t first;

	len = min_size(len, ring_space(r));
	first = min_size(len, r->size - at);
	mem_copy(r->data + at, src, first);
	mem_copy(r->data, (const char *)src + first, len - first);
	r->head += len;
	return len;
}

/* Copy bytes out without consuming them, @skip bytes past the tail. */
size_t ring_peek(const struct ring *r, size_t skip, void *dst, size_t len)
{
	size_t used = ring_used(r);
	size_t at, first;

	if (skip >= used)
		return 0;
	len = min_size(len, used - skip);
	at = (r->tail + skip) & (r->size - 1);
	first = min_size(len, r->size - at);
	mem_copy(dst, r->data + at, first);
	mem_copy((char *)dst + first, r->data, len - first);
	return len;
}

size_t ring_read(struct ring *r, void *dst, size_t len)
{
	len = ring_peek(r, 0, dst, len);
	r->tail += len;
	return len;
}

/* --- Formatting and the kernel log --- */

struct sink {
	char *buf;
	size_t size;
	size_t len;
};

static void sink_char(struct sink *s, char c)
{
	if (s->len + 1 < s->size)
		s->buf[s->len] = c;
	s->len++;
}

static void sink_number(struct sink *s, unsigned long value, unsigned base,
			bool negative, int width, char pad)
{
	char digits[BITS_PER_LONG];
	int n = 0;

	do {
		digits[n++] = "0123456789abcdef"[value % base];
		value /= base;
	} while (value);

	if (negative && pad == '0')
		sink_char(s, '-');
	for (width -= negative; width > n; width--)
		sink_char(s, pad);
	if (negative && pad != '0')
		sink_char(s, '-');
	while (n > 0)
		sink_char(s, digits[--n]);
}

/*
 * Format into @buf. Knows %d %u %x %s and %%, the length marks l and
 * z, and a width that may start with a zero. Returns the length that the
 * whole text needs; when that is not below @size, the text was cut.
 */
int vformat(char *buf, size_t size, const char *fmt, va_list ap)
{
	struct sink s = { .buf = buf, .size = size, .len = 0 };
	unsigned long u;
	const char *str;
	long d;

	for (; *fmt; fmt++) {
		bool is_long = false;
		char pad = ' ';
		int width = 0;

		if (*fmt != '%') {
			sink_char(&s, *fmt);
			continue;
		}
		if (*++fmt == '0')
			pad = '0';
		while (*fmt >= '0' && *fmt <= '9' && width < 100)
			width = width * 10 + (*fmt++ - '0');
		while (*fmt == 'l' || *fmt == 'z') {
			is_long = true;
			fmt++;
		}

		switch (*fmt) {
		case 'd':
			d = is_long ? va_arg(ap, long) : va_arg(ap, int);
			u = d < 0 ? 0 - (unsigned long)d : (unsigned long)d;
			sink_number(&s, u, 10, d < 0, width, pad);
			break;
		case 'u':
		case 'x':
			u = is_long ? va_arg(ap, unsigned long)
				    : va_arg(ap, unsigned int);
			sink_number(&s, u, *fmt == 'x' ? 16 : 10, false,
				    width, pad);
			break;
		case 's':
			str = va_arg(ap, const char *);
			if (!str)
				str = "(null)";
			for (; *str; str++, width--)
				sink_char(&s, *str);
			while (width-- > 0)
				sink_char(&s, ' ');
			break;
		case '\0':
			fmt--;
			break;
		default:
			sink_char(&s, *fmt);
			break;
		}
	}
	if (size)
		buf[s.len < size ? s.len : size - 1] = '\0';
	return s.len > INT_MAX ? INT_MAX : (int)s.len;
}

int format(char *buf, size_t size, const char *fmt, ...)
{
	va_list ap;
	int len;

	va_start(ap, fmt);
	len = vformat(buf, size, fmt, ap);
	va_end(ap);
	return len;
}

#define LOG_SIZE	8192
#define LOG_LINE	160

/* The number of timer interrupts since boot. */
static atomic_ulong ticks;

/* A record in the log ring; @len bytes of text follow it. */
struct log_record {
	uint32_t seq;
	uint16_t len;
	uint16_t level;
	unsigned long when;
};

static unsigned char log_bytes[LOG_SIZE];

static struct kernel_log {
	struct spinlock lock;
	struct ring ring;
	uint32_t next_seq;
} klog = {
	.lock = SPINLOCK_INIT,
	.ring = { .data = log_bytes, .size = LOG_SIZE },
};

/* Drop whole records from the old end until @need bytes are free. */
static void log_make_room(size_t need)
{
	struct log_record old;

	while (ring_space(&klog.ring) < need) {
		ring_read(&klog.ring, &old, sizeof(old));
		klog.ring.tail += old.len;
	}
}

static int log_vwrite(int level, const char *fmt, va_list ap)
{
	char line[LOG_LINE];
	struct log_record rec = { .level = (uint16_t)level };
	int len = vformat(line, sizeof(line), fmt, ap);

	if (len >= LOG_LINE)
		len = LOG_LINE - 1;
	rec.len = (uint16_t)len;
	rec.when = atomic_load(&ticks);

	spin_lock(&klog.lock);
	rec.seq = klog.next_seq++;
	log_make_room(sizeof(rec) + rec.len);
	ring_write(&klog.ring, &rec, sizeof(rec));
	ring_write(&klog.ring, line, rec.len);
	spin_unlock(&klog.lock);
	return len;
}

int printk(int level, const char *fmt, ...)
{
	va_list ap;
	int len;

	va_start(ap, fmt);
	len = log_vwrite(level, fmt, ap);
	va_end(ap);
	return len;
}

/*
 * Fetch the oldest record whose number is at least *@seq as one line of
 * text, and move *@seq past it. Returns the length of the line, or
 * -ENOENT when the log holds nothing newer.
 */
int log_fetch(uint32_t *seq, char *buf, size_t size)
{
	char line[LOG_LINE];
	struct log_record rec;
	size_t at = 0;
	int ret = -ENOENT;

	spin_lock(&klog.lock);
	while (ring_peek(&klog.ring, at, &rec, sizeof(rec))) {
		at += sizeof(rec);
		if (rec.seq >= *seq) {
			ring_peek(&klog.ring, at, line, rec.len);
			line[rec.len] = '\0';
			*seq = rec.seq + 1;
			ret = 0;
			break;
		}
		at += rec.len;
	}
	spin_unlock(&klog.lock);

	if (ret)
		return ret;
	return format(buf, size, "<%u>[%6lu] %s", (unsigned int)rec.level,
		      rec.when, line);
}

/* Log the reason and stop this processor for good. */
_Noreturn void panic(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	log_vwrite(LOG_ERR, fmt, ap);
	va_end(ap);
	for (;;)
		cpu_relax();
}

/* --- Bitmaps --- */

#define BITMAP_WORDS(n)		DIV_ROUND_UP((size_t)(n), BITS_PER_LONG)

static inline bool bit_test(const unsigned long *map, size_t bit)
{
	return map[bit / BITS_PER_LONG] >> (bit % BITS_PER_LONG) & 1;
}

static inline void bit_set(unsigned long *map, size_t bit)
{
	map[bit / BITS_PER_LONG] |= 1UL << (bit % BITS_PER_LONG);
}

static inline void bit_clear(unsigned long *map, size_t bit)
{
	map[bit / BITS_PER_LONG] &= ~(1UL << (bit % BITS_PER_LONG));
}

/*
 * Find @count clear bits in a row that start at a multiple of @align, a
 * power of two. Returns the first of them, or @nbits if there is no such
 * run. A set bit rules out every start up to and including itself.
 */
size_t bitmap_find_run(const unsigned long *map, size_t nbits, size_t count,
		       size_t align)
{
	size_t start = 0;
	size_t i;

	while (count <= nbits && start <= nbits - count) {
		for (i = start; i < start + count; i++) {
			if (bit_test(map, i))
				break;
		}
		if (i == start + count)
			return start;
		start = ALIGN_UP(i + 1, align);
	}
	return nbits;
}

/* --- Page allocator --- */

enum page_kind {
	PAGE_FREE,
	PAGE_HEAD,	/* first page of a plain allocation */
	PAGE_TAIL,	/* any further page of one */
	PAGE_SLAB,	/* holds objects of a slab cache */
};

struct page {
	uint8_t kind;
	uint8_t order;
};

static _Alignas(4096) unsigned char arena[NR_PAGES << PAGE_SHIFT];

static struct page_pool {
	struct spinlock lock;
	unsigned long busy[BITMAP_WORDS(NR_PAGES)];
	struct page pages[NR_PAGES];
	size_t free;
} pool = {
	.lock = SPINLOCK_INIT,
	.free = NR_PAGES,
};

/* The descriptor of the page around @addr, or NULL outside the arena. */
static struct page *page_of(const void *addr)
{
	uintptr_t off = (uintptr_t)addr - (uintptr_t)arena;

	if (off >= sizeof(arena))
		return NULL;
	return &pool.pages[off >> PAGE_SHIFT];
}

/* Get 2^@order pages in a row, aligned to their size; NULL if none. */
void *page_alloc(unsigned int order)
{
	size_t count, first, i;

	if (order > MAX_ORDER)
		return NULL;
	count = (size_t)1 << order;

	spin_lock(&pool.lock);
	first = bitmap_find_run(pool.busy, NR_PAGES, count, count);
	if (first == NR_PAGES) {
		spin_unlock(&pool.lock);
		return NULL;
	}
	for (i = first; i < first + count; i++) {
		bit_set(pool.busy, i);
		pool.pages[i].kind = i == first ? PAGE_HEAD : PAGE_TAIL;
	}
	pool.pages[first].order = (uint8_t)order;
	pool.free -= count;
	spin_unlock(&pool.lock);
	return arena + (first << PAGE_SHIFT);
}

void *page_alloc_zeroed(unsigned int order)
{
	void *addr = page_alloc(order);

	if (addr)
		mem_fill(addr, 0, PAGE_SIZE << order);
	return addr;
}

void page_free(void *addr)
{
	struct page *pg = page_of(addr);
	size_t first, count;

	if (!addr)
		return;
	kassert(pg && !((uintptr_t)addr & PAGE_MASK));
	first = (size_t)(pg - pool.pages);

	spin_lock(&pool.lock);
	kassert(pg->kind == PAGE_HEAD || pg->kind == PAGE_SLAB);
	count = (size_t)1 << pg->order;
	pool.free += count;
	while (count--) {
		bit_clear(pool.busy, first + count);
		pool.pages[first + count].kind = PAGE_FREE;
	}
	spin_unlock(&pool.lock);
}

/* --- Slab caches --- */

#define SLAB_POISON	0x6b
#define SLAB_ALIGN	16

struct free_object {
	struct free_object *next;
};

/* Sits at the start of each page of a cache; the objects follow it. */
struct slab {
	struct list link;
	struct cache *cache;
	struct free_object *free;
	unsigned int in_use;
};

/*
 * Slabs with room are on @partial, those without on @full. One empty
 * slab at most is kept in reserve, so that a cache on the edge does not
 * take and return the same page over and over.
 */
struct cache {
	const char *name;
	size_t size;
	unsigned int per_slab;
	unsigned int active;
	struct spinlock lock;
	struct list partial;
	struct list full;
	struct slab *spare;
};

#define SLAB_HEADER	ALIGN_UP(sizeof(struct slab), (size_t)SLAB_ALIGN)

int cache_init(struct cache *c, const char *name, size_t size)
{
	size = ALIGN_UP(size ? size : 1, (size_t)SLAB_ALIGN);
	if (size > PAGE_SIZE - SLAB_HEADER)
		return -EINVAL;
	c->name = name;
	c->size = size;
	c->per_slab = (unsigned int)((PAGE_SIZE - SLAB_HEADER) / size);
	c->active = 0;
	c->spare = NULL;
	spin_init(&c->lock);
	list_init(&c->partial);
	list_init(&c->full);
	return 0;
}

/* Take a page and thread its objects onto a free list in address order. */
static struct slab *slab_create(struct cache *c)
{
	struct slab *s = page_alloc(0);
	struct free_object **link;
	char *obj;
	unsigned int i;

	if (!s)
		return NULL;
	page_of(s)->kind = PAGE_SLAB;
	list_init(&s->link);
	s->cache = c;
	s->in_use = 0;

	obj = (char *)s + SLAB_HEADER;
	link = &s->free;
	for (i = 0; i < c->per_slab; i++, obj += c->size) {
		mem_fill(obj, SLAB_POISON, c->size);
		*link = (struct free_object *)obj;
		link = &(*link)->next;
	}
	*link = NULL;
	return s;
}

/* The object comes back zeroed; NULL when memory is exhausted. */
void *cache_alloc(struct cache *c)
{
	struct free_object *obj;
	struct slab *s;

	spin_lock(&c->lock);
	if (!list_empty(&c->partial)) {
		s = list_entry(c->partial.next, struct slab, link);
		list_unlink(&s->link);
	} else if (c->spare) {
		s = c->spare;
		c->spare = NULL;
	} else {
		/* Nobody else can see the new slab while we are unlocked. */
		spin_unlock(&c->lock);
		s = slab_create(c);
		if (!s)
			return NULL;
		spin_lock(&c->lock);
	}
	obj = s->free;
	s->free = obj->next;
	s->in_use++;
	c->active++;
	list_push(s->free ? &c->partial : &c->full, &s->link);
	spin_unlock(&c->lock);

	mem_fill(obj, 0, c->size);
	return obj;
}

void cache_free(struct cache *c, void *ptr)
{
	struct free_object *obj = ptr;
	struct slab *surplus = NULL;
	struct slab *s;

	if (!ptr)
		return;
	s = (struct slab *)((char *)ptr - ((uintptr_t)ptr & PAGE_MASK));
	kassert(page_of(s) && page_of(s)->kind == PAGE_SLAB);
	kassert(s->cache == c);
	mem_fill(ptr, SLAB_POISON, c->size);

	spin_lock(&c->lock);
	kassert(s->in_use > 0);
	obj->next = s->free;
	s->free = obj;
	s->in_use--;
	c->active--;
	list_unlink(&s->link);
	if (s->in_use) {
		list_push(&c->partial, &s->link);
	} else {
		surplus = c->spare;
		c->spare = s;
	}
	spin_unlock(&c->lock);

	page_free(surplus);
}

/* A cache can go only when all of its objects have come back. */
int cache_destroy(struct cache *c)
{
	struct slab *spare;
	unsigned int left;

	spin_lock(&c->lock);
	left = c->active;
	spare = c->spare;
	c->spare = NULL;
	spin_unlock(&c->lock);

	page_free(spare);
	if (left) {
		printk(LOG_WARN, "slab: %s still has %u objects", c->name,
		       left);
		return -EBUSY;
	}
	return 0;
}

static struct cache size_caches[7];

int kmalloc_init(void)
{
	size_t i;
	int err;

	for (i = 0; i < ARRAY_SIZE(size_caches); i++) {
		err = cache_init(&size_caches[i], "kmalloc", (size_t)16 << i);
		if (err)
			return err;
	}
	return 0;
}

void kmalloc_exit(void)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(size_caches); i++)
		cache_destroy(&size_caches[i]);
}

/* Zeroed memory of any size up to 2^MAX_ORDER pages. */
void *kmalloc(size_t size)
{
	unsigned int order = 0;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(size_caches); i++) {
		if (size <= size_caches[i].size)
			return cache_alloc(&size_caches[i]);
	}
	while (order <= MAX_ORDER && PAGE_SIZE << order < size)
		order++;
	return page_alloc_zeroed(order);
}

void kfree(void *ptr)
{
	struct page *pg = page_of(ptr);
	struct slab *s;

	if (!ptr)
		return;
	kassert(pg);
	if (pg->kind != PAGE_SLAB) {
		page_free(ptr);
		return;
	}
	s = (struct slab *)((char *)ptr - ((uintptr_t)ptr & PAGE_MASK));
	cache_free(s->cache, ptr);
}

/* --- Red-black tree --- */

/*
 * The children are an array, so that each case and its mirror image are
 * one piece of code: @side is where we are and !@side is across.
 */
struct rb_node {
	struct rb_node *parent;
	struct rb_node *kid[2];
	bool red;
};

struct rb_tree {
	struct rb_node *root;
};

typedef bool (*rb_less_fn)(const struct rb_node *a, const struct rb_node *b);

static inline bool rb_is_red(const struct rb_node *n)
{
	return n && n->red;
}

/* Let @new, which may be NULL, take the place of @old below its parent. */
static void rb_replace(struct rb_tree *t, struct rb_node *old,
		       struct rb_node *new)
{
	struct rb_node *parent = old->parent;

	if (parent)
		parent->kid[parent->kid[1] == old] = new;
	else
		t->root = new;
	if (new)
		new->parent = parent;
}

/* Push @n down to @side; its child from across comes up in its place. */
static void rb_rotate(struct rb_tree *t, struct rb_node *n, int side)
{
	struct rb_node *up = n->kid[!side];

	rb_replace(t, n, up);
	n->kid[!side] = up->kid[side];
	if (n->kid[!side])
		n->kid[!side]->parent = n;
	up->kid[side] = n;
	n->parent = up;
}

/* Equal keys go to the right, so they come out in order of arrival. */
void rb_insert(struct rb_tree *t, struct rb_node *n, rb_less_fn less)
{
	struct rb_node **link = &t->root;
	struct rb_node *parent = NULL;
	struct rb_node *grand, *uncle;
	int side;

	while (*link) {
		parent = *link;
		link = &parent->kid[!less(n, parent)];
	}
	n->parent = parent;
	n->kid[0] = NULL;
	n->kid[1] = NULL;
	n->red = true;
	*link = n;

	while (rb_is_red(n->parent)) {
		parent = n->parent;
		grand = parent->parent;
		side = grand->kid[1] == parent;
		uncle = grand->kid[!side];
		if (rb_is_red(uncle)) {
			parent->red = false;
			uncle->red = false;
			grand->red = true;
			n = grand;
			continue;
		}
		if (n == parent->kid[!side]) {
			rb_rotate(t, parent, side);
			parent = n;
		}
		parent->red = false;
		grand->red = true;
		rb_rotate(t, grand, !side);
		break;
	}
	t->root->red = false;
}

/* The paths through @n, which may be NULL, are one black node short. */
static void rb_fix_erase(struct rb_tree *t, struct rb_node *n,
			 struct rb_node *parent)
{
	struct rb_node *sib;
	int side;

	while (n != t->root && !rb_is_red(n)) {
		side = parent->kid[1] == n;
		sib = parent->kid[!side];
		if (sib->red) {
			sib->red = false;
			parent->red = true;
			rb_rotate(t, parent, side);
			sib = parent->kid[!side];
		}
		if (!rb_is_red(sib->kid[0]) && !rb_is_red(sib->kid[1])) {
			sib->red = true;
			n = parent;
			parent = n->parent;
			continue;
		}
		if (!rb_is_red(sib->kid[!side])) {
			sib->kid[side]->red = false;
			sib->red = true;
			rb_rotate(t, sib, !side);
			sib = parent->kid[!side];
		}
		sib->red = parent->red;
		sib->kid[!side]->red = false;
		parent->red = false;
		rb_rotate(t, parent, side);
		n = t->root;
	}
	if (n)
		n->red = false;
}

void rb_erase(struct rb_tree *t, struct rb_node *n)
{
	struct rb_node *next, *orphan, *parent;
	bool lost_red;

	if (n->kid[0] && n->kid[1]) {
		/* The successor has no left child and takes our place. */
		next = n->kid[1];
		while (next->kid[0])
			next = next->kid[0];
		lost_red = next->red;
		orphan = next->kid[1];
		parent = next->parent;
		if (parent == n) {
			parent = next;
		} else {
			rb_replace(t, next, orphan);
			next->kid[1] = n->kid[1];
			next->kid[1]->parent = next;
		}
		rb_replace(t, n, next);
		next->kid[0] = n->kid[0];
		next->kid[0]->parent = next;
		next->red = n->red;
	} else {
		orphan = n->kid[!n->kid[0]];
		parent = n->parent;
		lost_red = n->red;
		rb_replace(t, n, orphan);
	}
	if (!lost_red)
		rb_fix_erase(t, orphan, parent);
}

struct rb_node *rb_first(const struct rb_tree *t)
{
	struct rb_node *n = t->root;

	while (n && n->kid[0])
		n = n->kid[0];
	return n;
}

/* --- Radix tree --- */

#define RADIX_BITS	4
#define RADIX_SLOTS	(1u << RADIX_BITS)
#define RADIX_MAX	(BITS_PER_LONG / RADIX_BITS)

struct radix_node {
	unsigned int count;
	void *slot[RADIX_SLOTS];
};

/* Maps an unsigned long to a pointer; height counts levels of nodes. */
struct radix_tree {
	void *root;
	unsigned int height;
};

static inline unsigned int radix_digit(unsigned long index, unsigned int level)
{
	return (index >> (level * RADIX_BITS)) & (RADIX_SLOTS - 1);
}

static unsigned long radix_limit(const struct radix_tree *t)
{
	if (t->height >= RADIX_MAX)
		return ULONG_MAX;
	return (1UL << (t->height * RADIX_BITS)) - 1;
}

void radix_init(struct radix_tree *t)
{
	t->root = NULL;
	t->height = 1;
}

/* Free the nodes on @path that are empty, from the bottom up. */
static void radix_prune(void ***path, unsigned int depth)
{
	struct radix_node *n;

	for (; depth > 0; depth--) {
		n = *path[depth - 1];
		if (n->count)
			break;
		kfree(n);
		*path[depth - 1] = NULL;
		if (depth > 1) {
			n = *path[depth - 2];
			n->count--;
		}
	}
}

/*
 * Note in @path the links that lead to the slot of @index, the last of
 * which is the slot itself. The nodes on the way are made if need be.
 */
static int radix_path(struct radix_tree *t, unsigned long index,
		      void ***path, bool create)
{
	struct radix_node *parent = NULL;
	struct radix_node *n;
	unsigned int depth;

	path[0] = &t->root;
	for (depth = 0; depth < t->height; depth++) {
		n = *path[depth];
		if (!n && !create)
			return -ENOENT;
		if (!n) {
			n = kmalloc(sizeof(*n));
			if (!n) {
				radix_prune(path, depth);
				return -ENOMEM;
			}
			*path[depth] = n;
			if (parent)
				parent->count++;
		}
		path[depth + 1] =
			&n->slot[radix_digit(index, t->height - 1 - depth)];
		parent = n;
	}
	return 0;
}

int radix_insert(struct radix_tree *t, unsigned long index, void *item)
{
	void **path[RADIX_MAX + 1];
	struct radix_node *n;
	int err;

	while (index > radix_limit(t)) {
		if (t->root) {
			n = kmalloc(sizeof(*n));
			if (!n)
				return -ENOMEM;
			n->slot[0] = t->root;
			n->count = 1;
			t->root = n;
		}
		t->height++;
	}
	err = radix_path(t, index, path, true);
	if (err)
		return err;
	if (*path[t->height])
		return -EEXIST;
	*path[t->height] = item;
	n = *path[t->height - 1];
	n->count++;
	return 0;
}

void *radix_lookup(const struct radix_tree *t, unsigned long index)
{
	unsigned int level = t->height;
	struct radix_node *n = t->root;

	if (index > radix_limit(t))
		return NULL;
	while (n && level--)
		n = n->slot[radix_digit(index, level)];
	return n;
}

/* Take an item out and return it, or NULL if there was none. */
void *radix_remove(struct radix_tree *t, unsigned long index)
{
	void **path[RADIX_MAX + 1];
	struct radix_node *n;
	void *item;

	if (index > radix_limit(t) || radix_path(t, index, path, false))
		return NULL;
	item = *path[t->height];
	if (!item)
		return NULL;
	*path[t->height] = NULL;
	n = *path[t->height - 1];
	n->count--;
	radix_prune(path, t->height);
	return item;
}

/* The first item at or after *@index, whose place is then in *@index. */
void *radix_next(const struct radix_tree *t, unsigned long *index)
{
	struct radix_node *n;
	unsigned int level, slot;
	unsigned long span;

restart:
	n = t->root;
	if (!n || *index > radix_limit(t))
		return NULL;
	for (level = t->height - 1;; level--) {
		slot = radix_digit(*index, level);
		while (slot < RADIX_SLOTS && !n->slot[slot]) {
			span = (1UL << (level * RADIX_BITS)) - 1;
			*index = (*index | span) + 1;
			if (!*index)
				return NULL;
			slot++;
		}
		/* Past the end of this node: the carry is in *index. */
		if (slot == RADIX_SLOTS)
			goto restart;
		if (!level)
			return n->slot[slot];
		n = n->slot[slot];
	}
}

/* --- Timers --- */

#define WHEEL_SLOTS	64

struct timer {
	struct list link;
	unsigned long expires;
	void (*fn)(struct timer *timer);
};

static struct timer_wheel {
	struct spinlock lock;
	struct list slot[WHEEL_SLOTS];
} wheel;

int timers_init(void)
{
	size_t i;

	spin_init(&wheel.lock);
	for (i = 0; i < WHEEL_SLOTS; i++)
		list_init(&wheel.slot[i]);
	return 0;
}

void timer_setup(struct timer *timer, void (*fn)(struct timer *timer))
{
	list_init(&timer->link);
	timer->fn = fn;
}

/* Run the timer @delay ticks from now, one at the least. */
int timer_start(struct timer *timer, unsigned long delay)
{
	int err = 0;

	spin_lock(&wheel.lock);
	if (!list_empty(&timer->link)) {
		err = -EBUSY;
	} else {
		timer->expires = atomic_load(&ticks) + (delay ? delay : 1);
		list_append(&wheel.slot[timer->expires % WHEEL_SLOTS],
			    &timer->link);
	}
	spin_unlock(&wheel.lock);
	return err;
}

/* Returns true if the timer was pending and will now not run. */
bool timer_cancel(struct timer *timer)
{
	bool pending;

	spin_lock(&wheel.lock);
	pending = !list_empty(&timer->link);
	list_unlink(&timer->link);
	spin_unlock(&wheel.lock);
	return pending;
}

/*
 * The clock interrupt. Timers that are due move to a list of our own and
 * leave it one at a time, because each handler runs without the lock and
 * may start or cancel any timer, those on that list included.
 */
void timer_tick(void)
{
	struct list due = LIST_INIT(due);
	struct list *pos, *tmp;
	struct timer *timer;
	unsigned long now;

	spin_lock(&wheel.lock);
	now = atomic_fetch_add(&ticks, 1) + 1;
	list_for_each_safe(pos, tmp, &wheel.slot[now % WHEEL_SLOTS]) {
		timer = list_entry(pos, struct timer, link);
		/* A later round of the wheel shares the slot. */
		if (timer->expires == now) {
			list_unlink(pos);
			list_append(&due, pos);
		}
	}
	while ((pos = list_pop(&due)) != NULL) {
		timer = list_entry(pos, struct timer, link);
		spin_unlock(&wheel.lock);
		timer->fn(timer);
		spin_lock(&wheel.lock);
	}
	spin_unlock(&wheel.lock);
}

/* --- Tasks and the scheduler --- */

#define SCHED_UNIT	1024

/*
 * A task is a function that the scheduler calls again and again. It says
 * when it is done; if it put itself to sleep on the way, it is called
 * the next time after somebody woke it. Wakeups may be spurious.
 */
enum step { STEP_AGAIN, STEP_DONE };

enum task_state { TASK_READY, TASK_RUNNING, TASK_SLEEPING, TASK_DEAD };

struct wait_queue {
	struct spinlock lock;
	struct list waiters;
};

struct task {
	struct rb_node node;
	struct list wait_link;
	struct wait_queue *waiting;
	struct timer timer;
	struct ref ref;
	uint64_t vruntime;
	unsigned int weight;
	enum task_state state;
	bool on_cpu;
	enum step (*step)(struct task *task);
	void *data;
};

static struct cache task_cache;

/* The ready task that has had the least weighted time goes first. */
static struct run_queue {
	struct spinlock lock;
	struct rb_tree ready;
	uint64_t floor;
} rq = { .lock = SPINLOCK_INIT };

int sched_init(void)
{
	return cache_init(&task_cache, "task", sizeof(struct task));
}

void sched_exit(void)
{
	cache_destroy(&task_cache);
}

static bool task_before(const struct rb_node *a, const struct rb_node *b)
{
	return container_of(a, struct task, node)->vruntime <
	       container_of(b, struct task, node)->vruntime;
}

/* A task that slept for long must not starve the rest when it is back. */
static void rq_add(struct task *task)
{
	if (task->vruntime < rq.floor)
		task->vruntime = rq.floor;
	task->state = TASK_READY;
	rb_insert(&rq.ready, &task->node, task_before);
}

void task_put(struct task *task)
{
	if (ref_put(&task->ref))
		cache_free(&task_cache, task);
}

/* If the task is still in its step, its processor will requeue it. */
void task_wake(struct task *task)
{
	spin_lock(&rq.lock);
	if (task->state == TASK_SLEEPING) {
		if (task->on_cpu)
			task->state = TASK_RUNNING;
		else
			rq_add(task);
	}
	spin_unlock(&rq.lock);
}

static void task_set_sleeping(struct task *task)
{
	spin_lock(&rq.lock);
	task->state = TASK_SLEEPING;
	spin_unlock(&rq.lock);
}

/* A pending timer owns a reference to its task. */
static void task_timeout(struct timer *timer)
{
	struct task *task = container_of(timer, struct task, timer);

	task_wake(task);
	task_put(task);
}

int task_sleep(struct task *task, unsigned long delay)
{
	int err;

	ref_get(&task->ref);
	task_set_sleeping(task);
	err = timer_start(&task->timer, delay);
	if (err)
		task_put(task);
	return err;
}

/* The new task is ready; the caller owes a task_put() for the pointer. */
struct task *task_spawn(enum step (*step)(struct task *task), void *data,
			unsigned int weight)
{
	struct task *task = cache_alloc(&task_cache);

	if (!task)
		return err_ptr(-ENOMEM);
	list_init(&task->wait_link);
	timer_setup(&task->timer, task_timeout);
	ref_init(&task->ref);
	ref_get(&task->ref);
	task->weight = weight ? weight : 1;
	task->step = step;
	task->data = data;

	spin_lock(&rq.lock);
	rq_add(task);
	spin_unlock(&rq.lock);
	return task;
}

void wait_init(struct wait_queue *wq)
{
	spin_init(&wq->lock);
	list_init(&wq->waiters);
}

static void wait_leave(struct task *task)
{
	struct wait_queue *wq = task->waiting;

	if (!wq)
		return;
	spin_lock(&wq->lock);
	list_unlink(&task->wait_link);
	spin_unlock(&wq->lock);
	task->waiting = NULL;
}

/*
 * Go to sleep on a queue, which must outlive the wait. The caller looks
 * at its condition once more after this, so that a wakeup in between is
 * not lost, and calls wait_cancel() if there is no need to sleep.
 */
void wait_on(struct wait_queue *wq, struct task *task)
{
	wait_leave(task);
	spin_lock(&wq->lock);
	list_append(&wq->waiters, &task->wait_link);
	task_set_sleeping(task);
	spin_unlock(&wq->lock);
	task->waiting = wq;
}

void wait_cancel(struct task *task)
{
	wait_leave(task);
	task_wake(task);
}

/* Wake up to @max tasks in the order in which they came. */
void wait_wake(struct wait_queue *wq, unsigned int max)
{
	struct list *pos;

	spin_lock(&wq->lock);
	while (max-- && (pos = list_pop(&wq->waiters)) != NULL) {
		struct task *task = list_entry(pos, struct task, wait_link);

		/* It leaves the queue, under our lock, before it dies. */
		task_wake(task);
	}
	spin_unlock(&wq->lock);
}

/* Nothing may wake the task for the sake of an earlier sleep. */
static void task_disarm(struct task *task)
{
	wait_leave(task);
	if (timer_cancel(&task->timer))
		task_put(task);
}

/* Run one step of the best task; false if there was nothing to run. */
bool sched_run(void)
{
	struct rb_node *first;
	struct task *task;
	unsigned long start;
	enum step result;

	spin_lock(&rq.lock);
	first = rb_first(&rq.ready);
	if (!first) {
		spin_unlock(&rq.lock);
		return false;
	}
	rb_erase(&rq.ready, first);
	task = container_of(first, struct task, node);
	rq.floor = task->vruntime;
	task->state = TASK_RUNNING;
	task->on_cpu = true;
	spin_unlock(&rq.lock);

	task_disarm(task);
	start = atomic_load(&ticks);
	result = task->step(task);
	if (result == STEP_DONE)
		task_disarm(task);

	spin_lock(&rq.lock);
	task->on_cpu = false;
	task->vruntime += (atomic_load(&ticks) - start + 1) * SCHED_UNIT /
			  task->weight;
	if (result == STEP_DONE)
		task->state = TASK_DEAD;
	else if (task->state != TASK_SLEEPING)
		rq_add(task);
	spin_unlock(&rq.lock);

	if (result == STEP_DONE)
		task_put(task);
	return true;
}

struct mutex {
	struct spinlock lock;
	struct task *owner;
	struct wait_queue queue;
};

void mutex_init(struct mutex *m)
{
	spin_init(&m->lock);
	m->owner = NULL;
	wait_init(&m->queue);
}

/* On -EAGAIN the task is asleep: it returns and tries in its next step. */
int mutex_lock(struct mutex *m, struct task *task)
{
	int err = 0;

	spin_lock(&m->lock);
	if (m->owner == task) {
		err = -EDEADLK;
	} else if (m->owner) {
		wait_on(&m->queue, task);
		err = -EAGAIN;
	} else {
		m->owner = task;
	}
	spin_unlock(&m->lock);
	return err;
}

void mutex_unlock(struct mutex *m, struct task *task)
{
	spin_lock(&m->lock);
	kassert(m->owner == task);
	m->owner = NULL;
	wait_wake(&m->queue, 1);
	spin_unlock(&m->lock);
}

/* --- Page cache --- */

struct mapping;

struct mapping_ops {
	int (*read)(struct mapping *map, unsigned long index, void *data);
	int (*write)(struct mapping *map, unsigned long index,
		     const void *data);
};

/* Without @ops the cached pages are the only copy and are never evicted. */
struct mapping {
	struct spinlock lock;
	struct radix_tree pages;
	const struct mapping_ops *ops;
};

/* The tree owns one reference; new ones are taken under the map's lock. */
struct cpage {
	struct list lru;
	struct mapping *map;
	unsigned long index;
	struct ref ref;
	bool dirty;
	void *data;
};

static struct spinlock lru_lock = SPINLOCK_INIT;
static struct list lru = LIST_INIT(lru);

void map_init(struct mapping *map, const struct mapping_ops *ops)
{
	spin_init(&map->lock);
	radix_init(&map->pages);
	map->ops = ops;
}

void cpage_put(struct cpage *p)
{
	if (!ref_put(&p->ref))
		return;
	page_free(p->data);
	kfree(p);
}

/* Take a page out of its map, whose lock is held, and off the LRU list. */
static void cpage_detach(struct cpage *p)
{
	radix_remove(&p->map->pages, p->index);
	list_unlink(&p->lru);
	cpage_put(p);
}

/*
 * Free up to @goal clean pages nobody uses, the oldest first. The map's
 * lock comes before the LRU lock elsewhere, so here we may only try it;
 * a page on the list keeps its map in place while we hold the list.
 */
size_t cpage_shrink(size_t goal)
{
	struct list *pos, *tmp;
	size_t done = 0;

	spin_lock(&lru_lock);
	list_for_each_safe(pos, tmp, &lru) {
		struct cpage *p = list_entry(pos, struct cpage, lru);
		struct mapping *map = p->map;

		if (done == goal)
			break;
		if (!map->ops || !spin_trylock(&map->lock))
			continue;
		if (!p->dirty && ref_read(&p->ref) == 1) {
			cpage_detach(p);
			done++;
		}
		spin_unlock(&map->lock);
	}
	spin_unlock(&lru_lock);
	return done;
}

static struct cpage *cpage_read(struct mapping *map, unsigned long index)
{
	struct cpage *p = kmalloc(sizeof(*p));
	int err = -ENOMEM;

	if (!p)
		return err_ptr(err);
	ref_init(&p->ref);
	p->map = map;
	p->index = index;
	p->data = page_alloc_zeroed(0);
	if (!p->data && cpage_shrink(16))
		p->data = page_alloc_zeroed(0);
	if (!p->data)
		goto fail;
	if (map->ops) {
		err = map->ops->read(map, index, p->data);
		if (err)
			goto fail;
	}
	return p;

fail:
	cpage_put(p);
	return err_ptr(err);
}

/* Find a page or bring it in. Two may race to do so; the loser retries. */
struct cpage *cpage_get(struct mapping *map, unsigned long index)
{
	struct cpage *p;
	int err;

	for (;;) {
		spin_lock(&map->lock);
		p = radix_lookup(&map->pages, index);
		if (p)
			break;
		spin_unlock(&map->lock);

		p = cpage_read(map, index);
		if (is_err(p))
			return p;
		list_init(&p->lru);
		spin_lock(&map->lock);
		err = radix_insert(&map->pages, index, p);
		if (!err)
			break;
		spin_unlock(&map->lock);
		cpage_put(p);
		if (err != -EEXIST)
			return err_ptr(err);
	}
	ref_get(&p->ref);
	spin_lock(&lru_lock);
	list_unlink(&p->lru);
	list_append(&lru, &p->lru);
	spin_unlock(&lru_lock);
	spin_unlock(&map->lock);
	return p;
}

/* Drop the pages from @first on, dirty or not. */
void map_truncate(struct mapping *map, unsigned long first)
{
	struct cpage *p;

	spin_lock(&map->lock);
	spin_lock(&lru_lock);
	while ((p = radix_next(&map->pages, &first)) != NULL)
		cpage_detach(p);
	spin_unlock(&lru_lock);
	spin_unlock(&map->lock);
}

/* Write all dirty pages back; goes on after an error and reports it. */
int map_sync(struct mapping *map)
{
	unsigned long index = 0;
	struct cpage *p;
	int ret = 0;
	int err;

	if (!map->ops)
		return 0;
	spin_lock(&map->lock);
	while ((p = radix_next(&map->pages, &index)) != NULL) {
		if (p->dirty) {
			p->dirty = false;
			ref_get(&p->ref);
			spin_unlock(&map->lock);
			err = map->ops->write(map, p->index, p->data);
			spin_lock(&map->lock);
			if (err) {
				p->dirty = true;
				ret = err;
			}
			cpage_put(p);
		}
		if (!++index)
			break;
	}
	spin_unlock(&map->lock);
	return ret;
}

/* Copy between a buffer and the cache; returns the bytes moved, if any. */
long map_copy(struct mapping *map, size_t pos, void *buf, size_t len,
	      bool write)
{
	struct cpage *p;
	size_t done = 0;
	size_t off, n;

	while (done < len) {
		p = cpage_get(map, (pos + done) >> PAGE_SHIFT);
		if (is_err(p))
			return done ? (long)done : ptr_err(p);
		off = (pos + done) & PAGE_MASK;
		n = min_size(len - done, PAGE_SIZE - off);
		if (write) {
			mem_copy((char *)p->data + off, (char *)buf + done, n);
			spin_lock(&map->lock);
			p->dirty = true;
			spin_unlock(&map->lock);
		} else {
			mem_copy((char *)buf + done, (char *)p->data + off, n);
		}
		cpage_put(p);
		done += n;
	}
	return (long)done;
}

/* --- File system --- */

#define NAME_LEN	28
#define MAX_FILE	((size_t)1 << 30)

enum inode_type { TYPE_FILE, TYPE_DIR };

struct inode;

struct file_ops {
	long (*read)(struct inode *ino, size_t pos, void *buf, size_t len);
	long (*write)(struct inode *ino, size_t pos, void *buf, size_t len);
};

struct inode {
	struct ref ref;
	struct spinlock lock;
	enum inode_type type;
	size_t size;
	struct mapping pages;
	const struct file_ops *ops;
};

/* A name in a directory; it holds one reference to its inode. */
struct dentry {
	struct list sibling;
	struct list children;
	struct dentry *parent;
	struct inode *inode;
	char name[NAME_LEN];
};

struct file {
	struct inode *inode;
	size_t pos;
};

/* The lock guards the tree of names; file contents have their own. */
static struct file_system {
	struct spinlock lock;
	struct dentry *root;
} fs;

static long mem_read(struct inode *ino, size_t pos, void *buf, size_t len)
{
	long ret = 0;

	spin_lock(&ino->lock);
	if (pos < ino->size) {
		len = min_size(len, ino->size - pos);
		ret = map_copy(&ino->pages, pos, buf, len, false);
	}
	spin_unlock(&ino->lock);
	return ret;
}

static long mem_write(struct inode *ino, size_t pos, void *buf, size_t len)
{
	long ret;

	if (pos > MAX_FILE || len > MAX_FILE - pos)
		return -EFBIG;
	spin_lock(&ino->lock);
	ret = map_copy(&ino->pages, pos, buf, len, true);
	if (ret > 0 && pos + (size_t)ret > ino->size)
		ino->size = pos + (size_t)ret;
	spin_unlock(&ino->lock);
	return ret;
}

static const struct file_ops mem_ops = {
	.read = mem_read,
	.write = mem_write,
};

static void inode_put(struct inode *ino)
{
	if (!ref_put(&ino->ref))
		return;
	map_truncate(&ino->pages, 0);
	kfree(ino);
}

static struct dentry *dentry_find(struct dentry *dir, const char *name)
{
	struct list *pos;

	if (!name[0] || !str_cmp(name, "."))
		return dir;
	if (!str_cmp(name, ".."))
		return dir->parent;
	list_for_each(pos, &dir->children) {
		struct dentry *d = list_entry(pos, struct dentry, sibling);

		if (!str_cmp(d->name, name))
			return d;
	}
	return NULL;
}

/* A new name with a new inode, not yet part of the tree. */
static struct dentry *dentry_new(enum inode_type type)
{
	struct dentry *d = kmalloc(sizeof(*d));
	struct inode *ino = kmalloc(sizeof(*ino));

	if (!d || !ino) {
		kfree(ino);
		kfree(d);
		return NULL;
	}
	ref_init(&ino->ref);
	spin_init(&ino->lock);
	map_init(&ino->pages, NULL);
	ino->type = type;
	ino->ops = type == TYPE_FILE ? &mem_ops : NULL;
	list_init(&d->sibling);
	list_init(&d->children);
	d->parent = d;
	d->inode = ino;
	return d;
}

static void dentry_free(struct dentry *d)
{
	list_unlink(&d->sibling);
	inode_put(d->inode);
	kfree(d);
}

/*
 * Resolve all of @path but its last component, which goes to @name, and
 * return the directory. The lock is held, so the entry stays in place.
 */
static struct dentry *path_walk(const char *path, char *name)
{
	struct dentry *dir = fs.root;
	size_t len;

	name[0] = '\0';
	if (*path != '/')
		return err_ptr(-EINVAL);
	for (;;) {
		while (*path == '/')
			path++;
		if (!*path)
			return dir;
		dir = dentry_find(dir, name);
		if (!dir)
			return err_ptr(-ENOENT);
		if (dir->inode->type != TYPE_DIR)
			return err_ptr(-ENOTDIR);
		for (len = 0; *path && *path != '/'; path++) {
			if (len == NAME_LEN - 1)
				return err_ptr(-ENAMETOOLONG);
			name[len++] = *path;
		}
		name[len] = '\0';
	}
}

/* Create an empty file or directory. */
int fs_make(const char *path, enum inode_type type)
{
	struct dentry *d = dentry_new(type);
	struct dentry *dir;
	int err = 0;

	if (!d)
		return -ENOMEM;
	spin_lock(&fs.lock);
	dir = path_walk(path, d->name);
	if (is_err(dir)) {
		err = (int)ptr_err(dir);
	} else if (dentry_find(dir, d->name)) {
		err = -EEXIST;
	} else {
		d->parent = dir;
		list_append(&dir->children, &d->sibling);
	}
	spin_unlock(&fs.lock);
	if (err)
		dentry_free(d);
	return err;
}

/* Look a whole path up, with the lock held. */
static struct dentry *path_find(const char *path)
{
	char name[NAME_LEN];
	struct dentry *d = path_walk(path, name);

	if (is_err(d))
		return d;
	d = dentry_find(d, name);
	return d ? d : err_ptr(-ENOENT);
}

/* Open files keep the inode of a removed name alive until they close. */
int fs_remove(const char *path)
{
	struct dentry *d;
	int err = 0;

	spin_lock(&fs.lock);
	d = path_find(path);
	if (is_err(d))
		err = (int)ptr_err(d);
	else if (d == fs.root)
		err = -EBUSY;
	else if (!list_empty(&d->children))
		err = -ENOTEMPTY;
	else
		dentry_free(d);
	spin_unlock(&fs.lock);
	return err;
}

int fs_open(struct file *file, const char *path)
{
	struct dentry *d;
	int err = 0;

	spin_lock(&fs.lock);
	d = path_find(path);
	if (is_err(d)) {
		err = (int)ptr_err(d);
	} else {
		ref_get(&d->inode->ref);
		file->inode = d->inode;
		file->pos = 0;
	}
	spin_unlock(&fs.lock);
	return err;
}

void fs_close(struct file *file)
{
	inode_put(file->inode);
	file->inode = NULL;
}

/* An open file belongs to one task, so its position needs no lock. */
static long file_moved(struct file *file, long ret)
{
	if (ret > 0)
		file->pos += (size_t)ret;
	return ret;
}

long fs_read(struct file *file, void *buf, size_t len)
{
	struct inode *ino = file->inode;

	if (!ino->ops)
		return -EISDIR;
	return file_moved(file, ino->ops->read(ino, file->pos, buf, len));
}

long fs_write(struct file *file, void *buf, size_t len)
{
	struct inode *ino = file->inode;

	if (!ino->ops)
		return -EISDIR;
	return file_moved(file, ino->ops->write(ino, file->pos, buf, len));
}

int fs_init(void)
{
	spin_init(&fs.lock);
	fs.root = dentry_new(TYPE_DIR);
	return fs.root ? 0 : -ENOMEM;
}

/* Take the tree down, always following first children to a leaf. */
void fs_exit(void)
{
	struct dentry *d = fs.root;
	struct dentry *parent;

	while (d) {
		if (!list_empty(&d->children)) {
			d = list_entry(d->children.next, struct dentry,
				       sibling);
			continue;
		}
		parent = d == fs.root ? NULL : d->parent;
		dentry_free(d);
		d = parent;
	}
	fs.root = NULL;
}

/* --- Devices and drivers --- */

struct driver;

struct device {
	const char *name;
	const char *type;
	size_t size;
	struct list link;
	struct driver *driver;
	void *data;
};

struct driver {
	const char *type;
	int (*probe)(struct device *dev);
	void (*remove)(struct device *dev);
	struct list link;
};

/* Probe and remove run under the lock and may not register anything. */
static struct spinlock bus_lock = SPINLOCK_INIT;
static struct list bus_devices = LIST_INIT(bus_devices);
static struct list bus_drivers = LIST_INIT(bus_drivers);

static void bus_bind(struct device *dev, struct driver *drv)
{
	int err;

	if (dev->driver || str_cmp(dev->type, drv->type))
		return;
	err = drv->probe(dev);
	if (err)
		printk(LOG_WARN, "%s: probe failed: %d", dev->name, err);
	else
		dev->driver = drv;
}

void device_add(struct device *dev)
{
	struct list *pos;

	dev->driver = NULL;
	spin_lock(&bus_lock);
	list_append(&bus_devices, &dev->link);
	list_for_each(pos, &bus_drivers)
		bus_bind(dev, list_entry(pos, struct driver, link));
	spin_unlock(&bus_lock);
}

void driver_add(struct driver *drv)
{
	struct list *pos;

	spin_lock(&bus_lock);
	list_append(&bus_drivers, &drv->link);
	list_for_each(pos, &bus_devices)
		bus_bind(list_entry(pos, struct device, link), drv);
	spin_unlock(&bus_lock);
}

void driver_del(struct driver *drv)
{
	struct list *pos;

	spin_lock(&bus_lock);
	list_for_each(pos, &bus_devices) {
		struct device *dev = list_entry(pos, struct device, link);

		if (dev->driver == drv) {
			drv->remove(dev);
			dev->driver = NULL;
		}
	}
	list_unlink(&drv->link);
	spin_unlock(&bus_lock);
}

/* A disk in memory, read and written through the page cache. */
struct ramdisk {
	struct mapping cache;
	size_t size;
	char *store;
};

static int ramdisk_load(struct mapping *map, unsigned long index, void *data)
{
	struct ramdisk *rd = container_of(map, struct ramdisk, cache);

	if (index >= rd->size >> PAGE_SHIFT)
		return -EIO;
	mem_copy(data, rd->store + (index << PAGE_SHIFT), PAGE_SIZE);
	return 0;
}

static int ramdisk_save(struct mapping *map, unsigned long index,
			const void *data)
{
	struct ramdisk *rd = container_of(map, struct ramdisk, cache);

	mem_copy(rd->store + (index << PAGE_SHIFT), data, PAGE_SIZE);
	return 0;
}

static const struct mapping_ops ramdisk_ops = {
	.read = ramdisk_load,
	.write = ramdisk_save,
};

static int ramdisk_probe(struct device *dev)
{
	struct ramdisk *rd;

	if (!dev->size || dev->size & PAGE_MASK)
		return -EINVAL;
	rd = kmalloc(sizeof(*rd));
	if (!rd)
		return -ENOMEM;
	rd->store = kmalloc(dev->size);
	if (!rd->store)
		goto no_store;
	rd->size = dev->size;
	map_init(&rd->cache, &ramdisk_ops);
	dev->data = rd;
	return 0;

no_store:
	kfree(rd);
	return -ENOMEM;
}

static void ramdisk_remove(struct device *dev)
{
	struct ramdisk *rd = dev->data;

	map_sync(&rd->cache);
	map_truncate(&rd->cache, 0);
	kfree(rd->store);
	kfree(rd);
	dev->data = NULL;
}

static struct driver ramdisk_driver = {
	.type = "ramdisk",
	.probe = ramdisk_probe,
	.remove = ramdisk_remove,
};

static int ramdisk_init(void)
{
	driver_add(&ramdisk_driver);
	return 0;
}

static void ramdisk_exit(void)
{
	driver_del(&ramdisk_driver);
}

/* --- Boot --- */

/* Started in this order and stopped in the reverse of it. */
static const struct module {
	const char *name;
	int (*init)(void);
	void (*exit)(void);
} modules[] = {
	{ "kmalloc", kmalloc_init, kmalloc_exit },
	{ "timers", timers_init, NULL },
	{ "sched", sched_init, sched_exit },
	{ "fs", fs_init, fs_exit },
	{ "ramdisk", ramdisk_init, ramdisk_exit },
};

static void modules_stop(size_t count)
{
	while (count--) {
		if (modules[count].exit)
			modules[count].exit();
	}
}

int kernel_boot(void)
{
	size_t i;
	int err;

	for (i = 0; i < ARRAY_SIZE(modules); i++) {
		err = modules[i].init();
		if (err) {
			printk(LOG_ERR, "%s: init failed: %d",
			       modules[i].name, err);
			modules_stop(i);
			return err;
		}
	}
	printk(LOG_INFO, "boot: %zu pages free", pool.free);
	return 0;
}

void kernel_stop(void)
{
	modules_stop(ARRAY_SIZE(modules));
}
