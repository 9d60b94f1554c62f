// Enlarging and moving what is seen in a stage, for the pictures of the page.
export const zoomable = {
  data: () => ({ scale: 1, x: 0, y: 0, pointers: new Map() }),
  computed: {
    transform() {
      return `translate(${this.x}px, ${this.y}px) scale(${this.scale})`;
    },
  },
  methods: {
    // Enlarge about a point of the stage, its centre if there is no event.
    zoom(scale, event) {
      const box = this.$refs.stage.getBoundingClientRect();
      const px = event ? event.clientX - box.left - box.width / 2 : 0;
      const py = event ? event.clientY - box.top - box.height / 2 : 0;
      scale = Math.min(12, Math.max(1, scale));
      this.x = px - ((px - this.x) * scale) / this.scale;
      this.y = py - ((py - this.y) * scale) / this.scale;
      this.scale = scale;
      this.keepInside(box);
    },
    keepInside(box) {
      const w = (box.width * (this.scale - 1)) / 2;
      const h = (box.height * (this.scale - 1)) / 2;
      this.x = Math.min(w, Math.max(-w, this.x));
      this.y = Math.min(h, Math.max(-h, this.y));
    },
    wheel(event) {
      if (!event.ctrlKey && this.scale === 1) return; // Let the page scroll.
      event.preventDefault();
      this.zoom(this.scale * Math.exp(-event.deltaY / 300), event);
    },
    // Move the picture with one pointer, or enlarge it with two fingers.
    drag(event, last) {
      const other = [...this.pointers.values()].find((p) => p.pointerId !== event.pointerId);
      if (other) {
        const distance = (p) => Math.hypot(p.clientX - other.clientX, p.clientY - other.clientY);
        this.zoom((this.scale * distance(event)) / Math.max(1, distance(last)), event);
      } else {
        this.x += event.clientX - last.clientX;
        this.y += event.clientY - last.clientY;
        this.keepInside(this.$refs.stage.getBoundingClientRect());
      }
    },
  },
};
