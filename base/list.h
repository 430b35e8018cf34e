/* Intrusive doubly linked list, as in the Linux kernel's <linux/list.h>. Not
 * thread-safe: the owner of the head names the lock or thread that guards it.
 */
#ifndef BASE_LIST_H
#define BASE_LIST_H

#include <stdbool.h>

#include "base/util.h"

struct list {
	struct list *next, *prev;
};

static inline void list_init(struct list *l)
{
	l->next = l->prev = l;
}

static inline bool list_empty(const struct list *l)
{
	return l->next == l;
}

/* Adds n before the head, that is, at the tail. */
static inline void list_add_tail(struct list *head, struct list *n)
{
	n->prev = head->prev;
	n->next = head;
	head->prev->next = n;
	head->prev = n;
}

static inline void list_add(struct list *head, struct list *n)
{
	list_add_tail(head->next, n);
}

/* Removes n from its list and makes n an empty list, so that a second
 * list_del() is harmless. */
static inline void list_del(struct list *n)
{
	n->prev->next = n->next;
	n->next->prev = n->prev;
	list_init(n);
}

/* Moves all of `from` to the end of `to`, in order. A walk over `to` then does
 * not see nodes that it adds to `from` itself. */
static inline void list_move_all(struct list *from, struct list *to)
{
	if (list_empty(from))
		return;
	from->next->prev = to->prev;
	to->prev->next = from->next;
	from->prev->next = to;
	to->prev = from->prev;
	list_init(from);
}

#define list_entry(ptr, type, member) container_of(ptr, type, member)

#define list_first(head, type, member) list_entry((head)->next, type, member)

#define list_for_each(it, head)                                                \
	for (struct list *it = (head)->next; it != (head); it = it->next)

/* The body may delete `it`, but not its neighbours. */
#define list_for_each_safe(it, head)                                           \
	for (struct list *it = (head)->next, *it##_n = it->next; it != (head); \
	     it = it##_n, it##_n = it->next)

#endif
