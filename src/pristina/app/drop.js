// An area onto which pictures are dropped; each is sent to the server by itself.
export default {
  template: `
    <label :class="['drop', { small, over, busy }]"
           @dragover.prevent="over = true" @dragleave="over = false" @drop.prevent="dropped">
      <input ref="input" type="file" multiple class="out-of-sight"
             accept=".png,.jpg,.jpeg,.webp,.tif,.tiff,.bmp,.gif,.avif,.ppm,image/*"
             :disabled="busy" @change="chosen">
      <span v-if="busy" role="status">Sending …</span>
      <template v-else-if="small">Add a photo</template>
      <template v-else>
        <svg width="56" height="56" viewBox="0 0 24 24" aria-hidden="true" fill="none"
             stroke="currentColor" stroke-width="1.3" stroke-linejoin="round" stroke-linecap="round">
          <rect x="3" y="5" width="18" height="14" rx="2"/><circle cx="8.5" cy="10" r="1.5"/>
          <path d="M4 17l5-4 3 2.5 4-4.5 4 4"/>
        </svg>
        <strong>Drop a damaged photo here</strong>
        <span>or <u>choose one</u>, or several</span>
      </template>
    </label>`,
  props: { small: Boolean },
  data: () => ({ over: false, busy: false }),
  methods: {
    dropped(event) {
      this.over = false;
      this.send(event.dataTransfer.files);
    },
    chosen() {
      this.send(this.$refs.input.files).then(() => (this.$refs.input.value = ""));
    },
    async send(files) {
      this.busy = true;
      const ids = [];
      for (const file of Array.from(files)) {
        const form = new FormData();
        form.append("picture", file);
        try {
          const answer = await fetch("/pictures", { method: "POST", body: form });
          const said = await answer.json();
          if (answer.ok) ids.push(said.id);
          else this.$emit("refused", { detail: said.detail });
        } catch {
          this.$emit("refused", { detail: `${file.name} could not be sent.` });
        }
      }
      this.busy = false;
      // At the end, for the page may replace this area by the first picture.
      if (ids.length) this.$emit("sent", { ids });
    },
  },
};
