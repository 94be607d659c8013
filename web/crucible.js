import { app } from "/scripts/app.js";
import { api } from "/scripts/api.js";

app.registerExtension({
    name: "crucible.loraSaved",
    setup() {
        api.addEventListener("crucible.lora_saved", ({ detail }) => {
            app.refreshComboInNodes();
            app.extensionManager.toast.add({
                severity: "success",
                summary: "LoRA saved",
                detail: `${detail.lora_name} is in output/loras and in every list of LoRAs.`,
                life: 8000,
            });
        });
    },
});
