// Search where a page is opened as a file: browsers refuse a Worker there, so its script runs in a hidden frame instead.
// MkDocs Material's plugin `offline` looks for a polyfill of this name, and else has every page load one from another host.
if (location.protocol === "file:") {
  window.Worker = window.IFrameWorker = class extends EventTarget {
    constructor(url) {
      super()
      this.frame = document.body.appendChild(Object.assign(document.createElement("iframe"), {hidden: true}))
      const inside = this.frame.contentWindow
      inside.postMessage = data => this.dispatchEvent(new MessageEvent("message", {data}))
      this.loaded = new Promise((resolve, reject) => {
        const script = inside.document.createElement("script")
        inside.document.body.append(Object.assign(script, {src: url, onload: resolve, onerror: reject}))
      })
    }
    postMessage(data) {
      this.loaded.then(() => this.frame.contentWindow.dispatchEvent(new MessageEvent("message", {data})))
    }
    terminate() {
      this.frame.remove()
    }
  }
}
