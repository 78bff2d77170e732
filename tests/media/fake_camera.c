/* A V4L2 camera for tests, where there is none: loaded before the C library (LD_PRELOAD), it answers for one path.
 *
 * FAKE_CAMERA names the path (which need not exist; links to it count too), FAKE_CAMERA_JPEG a picture of
 * 320x240 for its MJPEG format, FAKE_CAMERA_UNPLUGGED a file that pulls the plug while it exists. The camera
 * offers MJPEG 320x240 at 30 and 15/s, YUYV 320x240 at 30/s and 160x120 at 30/s. Like a real driver it takes
 * the nearest size where it does not have the one asked for. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/videodev2.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { BUFFERS = 4, ROOM = 38 * 4096 /* at least 320x240x2, whole pages */, MOST = 16 };

static struct camera {
    int fd, width, height, rate, queued[BUFFERS], waiting, frame;
    unsigned format;
    unsigned char *memory;
} cameras[MOST];

static struct { unsigned format; int width, height, rates[2]; } modes[] = {
    {V4L2_PIX_FMT_MJPEG, 320, 240, {30, 15}},
    {V4L2_PIX_FMT_YUYV, 320, 240, {30, 0}},
    {V4L2_PIX_FMT_YUYV, 160, 120, {30, 0}},
};

static int unplugged(void) {
    const char *file = getenv("FAKE_CAMERA_UNPLUGGED");
    return file && access(file, F_OK) == 0;
}

static int is_ours(const char *path) {
    const char *ours = getenv("FAKE_CAMERA");
    char target[4096];
    if (!ours) return 0;
    if (strcmp(path, ours) == 0) return 1;
    ssize_t length = readlink(path, target, sizeof target - 1);
    if (length < 0) return 0;
    target[length] = 0;
    return strcmp(target, ours) == 0;
}

static int plug_in(void) {
    if (unplugged()) { errno = ENOENT; return -1; }
    for (int i = 0; i < MOST; i++)
        if (!cameras[i].fd) {
            int fd = memfd_create("camera", MFD_CLOEXEC);
            if (fd < 0 || ftruncate(fd, BUFFERS * ROOM)) return -1;
            cameras[i] = (struct camera){.fd = fd, .width = 320, .height = 240, .rate = 30, .format = V4L2_PIX_FMT_YUYV};
            cameras[i].memory = mmap(0, BUFFERS * ROOM, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
            return fd;
        }
    errno = EMFILE;
    return -1;
}

int open64(const char *path, int flags, ...) {
    va_list more;
    va_start(more, flags);
    int mode = va_arg(more, int);
    va_end(more);
    return is_ours(path) ? plug_in() : (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
}

int open(const char *path, int flags, ...) __attribute__((alias("open64")));

int close(int fd) {
    for (int i = 0; i < MOST; i++)
        if (fd > 0 && cameras[i].fd == fd) {
            munmap(cameras[i].memory, BUFFERS * ROOM);
            cameras[i].fd = 0;
        }
    return (int)syscall(SYS_close, fd);
}

static int fail(int number) { errno = number; return -1; }

static int take(struct camera *camera, struct v4l2_buffer *buffer) {
    struct timespec pause = {0, 1000000000L / camera->rate};
    nanosleep(&pause, 0);
    if (unplugged()) return fail(ENODEV);
    if (!camera->waiting) return fail(EAGAIN);
    int index = camera->queued[0];
    memmove(camera->queued, camera->queued + 1, sizeof(int) * --camera->waiting);
    unsigned char *picture = camera->memory + index * ROOM;
    size_t size = 0;
    if (camera->format == V4L2_PIX_FMT_MJPEG) {
        FILE *file = fopen(getenv("FAKE_CAMERA_JPEG"), "rb");
        if (file) { size = fread(picture, 1, ROOM, file); fclose(file); }
    } else {
        size = (size_t)camera->width * camera->height * 2;
        for (size_t i = 0; i < size; i += 2) { picture[i] = (unsigned char)(i / 4 + camera->frame * 3); picture[i + 1] = 128; }
    }
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    memset(buffer, 0, sizeof *buffer);
    buffer->index = index;
    buffer->type = V4L2_BUF_TYPE_VIDEO_CAPTURE;
    buffer->memory = V4L2_MEMORY_MMAP;
    buffer->bytesused = size;
    buffer->length = ROOM;
    buffer->sequence = camera->frame++;
    buffer->flags = V4L2_BUF_FLAG_TIMESTAMP_MONOTONIC;
    buffer->timestamp.tv_sec = now.tv_sec;
    buffer->timestamp.tv_usec = now.tv_nsec / 1000;
    return 0;
}

static int settle(struct camera *camera, struct v4l2_format *wanted) {
    struct v4l2_pix_format *pix = &wanted->fmt.pix;
    int known = 0, best = -1;
    for (int i = 0; i < 3; i++)
        if (modes[i].format == pix->pixelformat) {
            known = 1;
            if (best < 0 || abs(modes[i].width - (int)pix->width) < abs(modes[best].width - (int)pix->width)) best = i;
        }
    if (!known) return fail(EINVAL);
    camera->format = pix->pixelformat;
    pix->width = camera->width = modes[best].width;
    pix->height = camera->height = modes[best].height;
    pix->field = V4L2_FIELD_NONE;
    pix->bytesperline = 2 * pix->width;
    pix->sizeimage = ROOM;
    return 0;
}

static int answer(struct camera *camera, unsigned long request, void *with) {
    if (unplugged()) return fail(ENODEV);
    switch (request) {
    case VIDIOC_QUERYCAP: {
        struct v4l2_capability *it = with;
        memset(it, 0, sizeof *it);
        strcpy((char *)it->driver, "stand-in");
        strcpy((char *)it->card, "Stand-in Camera");
        it->capabilities = it->device_caps = V4L2_CAP_VIDEO_CAPTURE | V4L2_CAP_STREAMING;
        it->capabilities |= V4L2_CAP_DEVICE_CAPS;
        return 0;
    }
    case VIDIOC_ENUM_FMT: {
        struct v4l2_fmtdesc *it = with;
        if (it->index > 1) return fail(EINVAL);
        it->pixelformat = it->index ? V4L2_PIX_FMT_YUYV : V4L2_PIX_FMT_MJPEG;
        return 0;
    }
    case VIDIOC_ENUM_FRAMESIZES: {
        struct v4l2_frmsizeenum *it = with;
        unsigned found = 0;
        for (int i = 0; i < 3; i++)
            if (modes[i].format == it->pixel_format && found++ == it->index) {
                it->type = V4L2_FRMSIZE_TYPE_DISCRETE;
                it->discrete.width = modes[i].width;
                it->discrete.height = modes[i].height;
                return 0;
            }
        return fail(EINVAL);
    }
    case VIDIOC_ENUM_FRAMEINTERVALS: {
        struct v4l2_frmivalenum *it = with;
        for (int i = 0; i < 3; i++)
            if (modes[i].format == it->pixel_format && modes[i].width == (int)it->width && it->index < 2 && modes[i].rates[it->index]) {
                it->type = V4L2_FRMIVAL_TYPE_DISCRETE;
                it->discrete.numerator = 1;
                it->discrete.denominator = modes[i].rates[it->index];
                return 0;
            }
        return fail(EINVAL);
    }
    case VIDIOC_G_INPUT:
        *(int *)with = 0;
        return 0;
    case VIDIOC_ENUMINPUT: {
        struct v4l2_input *it = with;
        return it->index ? fail(EINVAL) : 0;
    }
    case VIDIOC_G_FMT: {
        struct v4l2_format *it = with;
        it->fmt.pix.pixelformat = camera->format;
        it->fmt.pix.width = camera->width;
        it->fmt.pix.height = camera->height;
        it->fmt.pix.field = V4L2_FIELD_NONE;
        it->fmt.pix.sizeimage = ROOM;
        return 0;
    }
    case VIDIOC_S_FMT:
        return settle(camera, with);
    case VIDIOC_G_PARM:
    case VIDIOC_S_PARM: {
        struct v4l2_streamparm *it = with;
        if (request == VIDIOC_S_PARM && it->parm.capture.timeperframe.numerator) {
            int asked = it->parm.capture.timeperframe.denominator / it->parm.capture.timeperframe.numerator;
            camera->rate = asked == 15 && camera->format == V4L2_PIX_FMT_MJPEG ? 15 : 30;
        }
        it->parm.capture.capability = V4L2_CAP_TIMEPERFRAME;
        it->parm.capture.timeperframe.numerator = 1;
        it->parm.capture.timeperframe.denominator = camera->rate;
        return 0;
    }
    case VIDIOC_REQBUFS: {
        struct v4l2_requestbuffers *it = with;
        it->count = BUFFERS;
        return 0;
    }
    case VIDIOC_QUERYBUF: {
        struct v4l2_buffer *it = with;
        it->length = ROOM;
        it->m.offset = it->index * ROOM;
        return 0;
    }
    case VIDIOC_QBUF:
        camera->queued[camera->waiting++ % BUFFERS] = ((struct v4l2_buffer *)with)->index;
        return 0;
    case VIDIOC_DQBUF:
        return take(camera, with);
    case VIDIOC_STREAMON:
    case VIDIOC_STREAMOFF:
        return 0;
    }
    return fail(ENOTTY);
}

int ioctl(int fd, unsigned long request, ...) {
    va_list more;
    va_start(more, request);
    void *with = va_arg(more, void *);
    va_end(more);
    for (int i = 0; i < MOST; i++)
        if (cameras[i].fd && cameras[i].fd == fd) return answer(&cameras[i], request & 0xffffffffUL, with);
    return (int)syscall(SYS_ioctl, fd, request, with);
}
