/*
 * A program that asks its C library for names, as most programs do.
 *
 * lookup ZONE MS
 *
 * Begins a look-up of both families every 200 to 500 ms, for MS milliseconds, each for a new name below ZONE and in a
 * thread of its own. For each that succeeds it prints how long that took in microseconds; at the end, "sent" and how many it
 * began. No C library here goes on for more than 10 s.
 */
#include <netdb.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static const char *zone;
static _Atomic long ended;

static long now_us(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000L + now.tv_nsec / 1000;
}

static void sleep_us(long us) {
    struct timespec wait = {us / 1000000, us % 1000000 * 1000};
    nanosleep(&wait, NULL);
}

static void *look_up(void *argument) {
    char name[256];
    struct addrinfo hints = {.ai_socktype = SOCK_DGRAM}, *found;
    snprintf(name, sizeof name, "q%ld.%s", (long)argument, zone);
    long start = now_us();
    if (getaddrinfo(name, NULL, &hints, &found) == 0) {
        printf("%ld\n", now_us() - start);
        fflush(stdout);
        freeaddrinfo(found);
    }
    ended++;
    return NULL;
}

int main(int count, char **arguments) {
    if (count != 3) return 2;
    zone = arguments[1];
    long end = now_us() + atol(arguments[2]) * 1000, sent = 0;
    srand(getpid());
    for (sleep_us(rand() % 300000); now_us() < end; sleep_us(200000 + rand() % 300001)) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, look_up, (void *)sent++) != 0) return 1;
        pthread_detach(thread);
    }
    for (long patience = now_us() + 11000000; ended < sent && now_us() < patience;) sleep_us(10000);
    printf("sent %ld\n", sent);
    fflush(stdout);
    _exit(0);
}
